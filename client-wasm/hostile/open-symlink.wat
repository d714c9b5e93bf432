;; Follows a link named "escape-link", which the test puts into the data directory, pointing outside.
;; Must come of it: exit code 40, refused: a failed task. Exit code 41 is an escape.
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "escape-link\00./escape-link\00escape-link/passwd\00")
  ;; Opens a path for reading below each of the descriptors 3 to 15, following links.
  (func $try (param $path i32) (param $len i32)
    (local $fd i32)
    (local.set $fd (i32.const 3))
    (loop $next
      (if (i32.eqz
            (call $path_open
              (local.get $fd) (i32.const 1) (local.get $path) (local.get $len)
              (i32.const 0) (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 0)))
        (then (call $proc_exit (i32.const 41))))
      (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $fd) (i32.const 16)))))
  (func (export "_start")
    (call $try (i32.const 64) (i32.const 11)) ;; escape-link
    (call $try (i32.const 76) (i32.const 13)) ;; ./escape-link
    (call $try (i32.const 90) (i32.const 18)) ;; escape-link/passwd
    (call $proc_exit (i32.const 40))))
