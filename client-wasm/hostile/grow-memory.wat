;; Takes memory 1 MiB at a time and writes to every page of it, until it is refused.
;; Must come of it: refused at the memory limit, then exit code 42 (or the limit's own trap): a failed
;; task. The host never holds more than the limit.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (local $page i32)
    (block $refused
      (loop $again
        (local.set $page (memory.grow (i32.const 16)))
        (br_if $refused (i32.eq (local.get $page) (i32.const -1)))
        (loop $touch
          (i32.store8 (i32.shl (local.get $page) (i32.const 16)) (i32.const 1))
          (local.set $page (i32.add (local.get $page) (i32.const 1)))
          (br_if $touch (i32.lt_u (local.get $page) (memory.size))))
        (br $again)))
    (call $proc_exit (i32.const 42))))
