;; Climbs out of every directory that it was given.
;; Must come of it: exit code 40, each one refused: a failed task. Exit code 41 is an escape.
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "..\00../\00../..\00../secret\00./../secret\00../../../../../../../../etc/passwd\00etc/../../etc/passwd\00")
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
    (call $try (i32.const 64) (i32.const 2)) ;; ..
    (call $try (i32.const 67) (i32.const 3)) ;; ../
    (call $try (i32.const 71) (i32.const 5)) ;; ../..
    (call $try (i32.const 77) (i32.const 9)) ;; ../secret
    (call $try (i32.const 87) (i32.const 11)) ;; ./../secret
    (call $try (i32.const 99) (i32.const 34)) ;; ../../../../../../../../etc/passwd
    (call $try (i32.const 134) (i32.const 20)) ;; etc/../../etc/passwd
    (call $proc_exit (i32.const 40))))
