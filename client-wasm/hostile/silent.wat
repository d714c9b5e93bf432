;; Ends well and prints nothing.
;; Must come of it: as a plain task it completes with no output; in a round it fails, for want of an
;; update.
(module
  (memory (export "memory") 1)
  (func (export "_start")))
