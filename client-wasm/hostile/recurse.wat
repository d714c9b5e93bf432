;; Calls itself without end; the addition after the call keeps it from being a tail call.
;; Must come of it: a failed task that names the exhausted stack; the host's own stack is whole.
(module
  (memory (export "memory") 1)
  (func $deeper (param $depth i32) (result i32)
    (i32.add (call $deeper (i32.add (local.get $depth) (i32.const 1))) (i32.const 1)))
  (func (export "_start")
    (drop (call $deeper (i32.const 0)))))
