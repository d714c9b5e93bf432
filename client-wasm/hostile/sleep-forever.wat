;; Asks the host to sleep for a year, where no interruption check of its own code can reach it.
;; Must come of it: stopped at the wall time limit, a failed task that says so.
(module
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    ;; A subscription at 0: tag 0 (clock) at 8, monotonic clock at 16, its timeout in ns at 24.
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 31536000000000000))
    (loop $again
      (drop (call $poll_oneoff (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))
      (br $again))))
