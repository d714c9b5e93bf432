;; Writes 64 KiB to stderr, again and again, whatever the host answers.
;; Must come of it: no more than the log limit is kept, and it ends as a failed task, at the latest
;; at the wall time limit; the host's memory and log stay bounded.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (memory.fill (i32.const 0) (i32.const 120) (i32.const 131072))
    ;; An iovec at 0: address 4096, length 65536. Bytes written go to 8.
    (i32.store (i32.const 0) (i32.const 4096))
    (i32.store (i32.const 4) (i32.const 65536))
    (loop $again
      (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br $again))))
