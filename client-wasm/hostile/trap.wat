;; Runs into an unreachable instruction.
;; Must come of it: a failed task that names the trap.
(module
  (memory (export "memory") 1)
  (func (export "_start") unreachable))
