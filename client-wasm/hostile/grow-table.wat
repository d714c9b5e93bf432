;; Takes table entries, a million at a time, which cost the host memory outside of the guest's.
;; Must come of it: refused at the limit, then exit code 42 (or the limit's own trap): a failed task.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (table $entries 0 funcref)
  (func (export "_start")
    (loop $again
      (br_if $again
        (i32.ne (table.grow $entries (ref.null func) (i32.const 1000000)) (i32.const -1))))
    (call $proc_exit (i32.const 42))))
