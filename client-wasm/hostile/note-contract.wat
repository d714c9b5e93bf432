;; Knows the design note's contract and no more: env ROUND_ID, MODEL_URI and HYPERPARAMS, JSON on stdout,
;; `_start`. Its update names the round and the base model that its environment names.
;; Must come of it: a completed task and an accepted update. With one of the three missing: exit code 2.
(module
  (import "wasi_snapshot_preview1" "environ_sizes_get"
    (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get"
    (func $environ_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  ;; Counters below 64, texts from 1024, pointers from 2048, the environment from 16384.
  (memory (export "memory") 18)
  (data (i32.const 1024) "{\22round_id\22:\22")
  (data (i32.const 1037) "\22,\22base_model_uri\22:\22")
  (data (i32.const 1057) "\22,\22num_samples\22:512,\22metrics\22:{\22loss\22:0.73},\22update\22:{\22w\22:[0.12,-0.05,1.01],\22b\22:0.33}}\0a")
  (data (i32.const 1144) "ROUND_ID=")
  (data (i32.const 1153) "MODEL_URI=")
  (data (i32.const 1163) "HYPERPARAMS=")

  ;; The address of the value of the entry that starts with a key, or the guest's end.
  (func $value (param $key i32) (param $len i32) (result i32)
    (local $entry i32) (local $i i32)
    (block $missing
      (loop $next
        (br_if $missing (i32.ge_u (local.get $entry) (i32.load (i32.const 0))))
        (local.set $i (i32.const 0))
        (block $differs
          (loop $same
            (if (i32.eq (local.get $i) (local.get $len))
              (then (return (i32.add (call $entry (local.get $entry)) (local.get $len)))))
            (br_if $differs
              (i32.ne
                (i32.load8_u (i32.add (call $entry (local.get $entry)) (local.get $i)))
                (i32.load8_u (i32.add (local.get $key) (local.get $i)))))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br $same)))
        (local.set $entry (i32.add (local.get $entry) (i32.const 1)))
        (br $next)))
    (call $proc_exit (i32.const 2))
    unreachable)

  (func $entry (param $index i32) (result i32)
    (i32.load (i32.add (i32.const 2048) (i32.shl (local.get $index) (i32.const 2)))))

  (func $print (param $text i32) (param $len i32)
    (i32.store (i32.const 16) (local.get $text))
    (i32.store (i32.const 20) (local.get $len))
    (drop (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24))))

  ;; Prints a text up to its NUL.
  (func $print_value (param $text i32)
    (local $len i32)
    (block $end
      (loop $next
        (br_if $end (i32.eqz (i32.load8_u (i32.add (local.get $text) (local.get $len)))))
        (local.set $len (i32.add (local.get $len) (i32.const 1)))
        (br $next)))
    (call $print (local.get $text) (local.get $len)))

  (func (export "_start")
    (drop (call $environ_sizes_get (i32.const 0) (i32.const 4)))
    (drop (call $environ_get (i32.const 2048) (i32.const 16384)))
    (drop (call $value (i32.const 1163) (i32.const 12)))
    (call $print (i32.const 1024) (i32.const 13))
    (call $print_value (call $value (i32.const 1144) (i32.const 9)))
    (call $print (i32.const 1037) (i32.const 20))
    (call $print_value (call $value (i32.const 1153) (i32.const 10)))
    (call $print (i32.const 1057) (i32.const 87))))
