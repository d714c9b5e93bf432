;; Never ends, and calls nothing of the host.
;; Must come of it: stopped at the wall time limit, a failed task that says so; the next task runs.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $again (br $again))))
