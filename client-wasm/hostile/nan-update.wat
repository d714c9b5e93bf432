;; Prints an update with a weight NaN, which JSON has no word for.
;; Must come of it: a failed task: the output is not an update.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; An iovec at 0: the text's address and length. Bytes written go to 8.
  (data (i32.const 0) "\10\00\00\00\8e\00\00\00")
  (data (i32.const 16) "{\22round_id\22:\22r-1\22,\22base_model_uri\22:\22fl/models/global_model_v0\22,\22num_samples\22:7,\22metrics\22:{\22loss\22:0.73},\22update\22:{\22w\22:[0.25,NaN,1.0],\22b\22:0.5}}\0a")
  (func (export "_start")
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
