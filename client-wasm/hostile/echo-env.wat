;; Prints its environment, one NAME=value a line, and nothing else.
;; Must come of it: exactly what the task and the proplet gave it, nothing of the host's own.
(module
  (import "wasi_snapshot_preview1" "environ_sizes_get"
    (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get"
    (func $environ_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  ;; Counters below 64, pointers from 64, the text from 8192: up to 1 MiB of environment.
  (memory (export "memory") 18)
  (func (export "_start")
    (local $at i32) (local $end i32)
    (drop (call $environ_sizes_get (i32.const 0) (i32.const 4)))
    (drop (call $environ_get (i32.const 64) (i32.const 8192)))
    (local.set $at (i32.const 8192))
    (local.set $end (i32.add (i32.const 8192) (i32.load (i32.const 4))))
    ;; Each entry ends with a NUL: make it a line.
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (if (i32.eqz (i32.load8_u (local.get $at)))
          (then (i32.store8 (local.get $at) (i32.const 10))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (i32.store (i32.const 16) (i32.const 8192))
    (i32.store (i32.const 20) (i32.load (i32.const 4)))
    (drop (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)))))
