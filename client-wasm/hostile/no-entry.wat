;; Is a valid module, but exports neither `_start` nor `run`.
;; Must come of it: a failed task that names the two exports that would do.
(module
  (memory (export "memory") 1)
  (func (export "train")))
