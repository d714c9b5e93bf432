;; Declares 4 GiB of memory, to be had before its first instruction.
;; Must come of it: a failed task that names the memory limit; nothing runs.
(module
  (memory (export "memory") 65536)
  (func (export "_start")))
