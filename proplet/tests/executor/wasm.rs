//! What is particular to WebAssembly: what is a program, where it is entered, and its own ways to
//! fail.

use proplet::executor::{Failure, Job, Output, Program, TrapKind};

use crate::device::{Device, job, probes, wat};

async fn end_of(job: Job) -> Result<Output, Failure> {
    let device = Device::wasm();
    let end = device.run(job).await.end;
    // However it ended, the same executor runs the next one.
    let next = wat(r#"(module (func (export "_start")))"#);
    device.run(self::job(&next, &[])).await.end.unwrap();
    end
}

async fn failure_of(program: &Program) -> Failure {
    end_of(job(program, &[])).await.unwrap_err()
}

/// A module whose `_start` is this.
fn start(body: &str) -> Program {
    wat(&format!(
        r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (table 1 funcref)
            (type $other (func (param i64)))
            (func $start (export "_start") {body}))"#
    ))
}

#[tokio::test]
async fn what_is_no_webassembly_is_refused_by_its_first_bytes() {
    for bytes in [&b""[..], b"\0", b"garbage that is long enough", b"\0asm\x02\0\0\0", b"(module)"]
    {
        let failure = failure_of(&Program::new(bytes)).await;
        assert_eq!(failure.code(), "not_wasm", "{bytes:?}");
        assert!(failure.to_string().contains(&format!("{} bytes", bytes.len())), "{failure}");
    }
}

#[tokio::test]
async fn what_is_malformed_does_not_compile() {
    let (_, probe) = probes("wasm").remove(0);
    let torn = &probe.bytes()[..probe.bytes().len() / 2];
    for bytes in [torn, b"\0asm\x01\0\0\0\xff\xff\xff\xff", b"\0asm\x0d\0\x01\0\xff\xff"] {
        assert_eq!(failure_of(&Program::new(bytes)).await.code(), "compile");
    }
}

#[tokio::test]
async fn a_program_without_an_entry_says_what_is_missing() {
    for text in [
        "(module)",
        r#"(module (func (export "main")))"#,
        r#"(module (memory (export "_start") 1))"#,
        r#"(module (func (export "run") (param i32 v128)))"#,
        "(component)",
    ] {
        assert_eq!(failure_of(&wat(text)).await.code(), "missing_export", "{text}");
    }
}

#[tokio::test]
async fn a_program_that_wants_more_than_wasi_is_refused_by_name() {
    let failure =
        failure_of(&wat(r#"(module (import "env" "system" (func)) (func (export "_start")))"#))
            .await;
    assert_eq!(failure, Failure::Link { import: "env::system".into() });

    let failure = failure_of(&wat(
        r#"(component (import "wasi:http/types@0.2.0" (instance (export "x" (func)))))"#,
    ))
    .await;
    assert_eq!(failure.code(), "link");
    assert!(failure.to_string().contains("wasi:http/types"), "{failure}");
}

#[tokio::test]
async fn a_run_function_is_an_entry_and_its_results_are_ignored() {
    let program = wat(r#"(module (func (export "run") (result i32 f64) i32.const 7 f64.const 1))"#);
    end_of(job(&program, &[])).await.unwrap();
}

#[tokio::test]
async fn a_module_with_a_run_function_is_initialized_first() {
    let program = wat(r#"(module (global $ready (mut i32) i32.const 0)
            (func (export "_initialize") i32.const 1 global.set $ready)
            (func (export "run") (if (i32.eqz (global.get $ready)) (then unreachable))))"#);
    end_of(job(&program, &[])).await.unwrap();
}

#[tokio::test]
async fn start_comes_before_run() {
    let program = wat(r#"(module (func (export "run") unreachable) (func (export "_start")))"#);
    end_of(job(&program, &[])).await.unwrap();
}

#[tokio::test]
async fn a_component_answers_by_its_result() {
    for (value, ok) in [(0, true), (1, false)] {
        let program = wat(&format!(
            r#"(component
                (core module $m (func (export "run") (result i32) i32.const {value}))
                (core instance $i (instantiate $m))
                (func $run (result (result)) (canon lift (core func $i "run")))
                (instance $r (export "run" (func $run)))
                (export "wasi:cli/run@0.2.0" (instance $r)))"#
        ));
        let end = end_of(job(&program, &[])).await;
        assert_eq!(end.err(), (!ok).then_some(Failure::ExitCode { code: 1 }));
    }
}

#[tokio::test]
async fn every_exit_code_is_reported_as_it_is() {
    end_of(job(&start("i32.const 0 call $exit"), &[])).await.unwrap();
    for code in [1, 3, 125, 126, 255, -1] {
        let failure = failure_of(&start(&format!("i32.const {code} call $exit"))).await;
        assert_eq!(failure, Failure::ExitCode { code });
    }
}

#[tokio::test]
async fn traps_are_told_apart() {
    for (body, kind) in [
        ("unreachable", TrapKind::Unreachable),
        ("i32.const -1 i32.load drop", TrapKind::OutOfBounds),
        ("call $start", TrapKind::StackOverflow),
        ("i32.const 1 i32.const 0 i32.div_u drop", TrapKind::DivideByZero),
        ("i32.const 0x80000000 i32.const -1 i32.div_s drop", TrapKind::IntegerOverflow),
        ("f32.const nan i32.trunc_f32_s drop", TrapKind::IntegerOverflow),
        ("i32.const 0 call_indirect", TrapKind::BadCall),
        ("i32.const 9 call_indirect", TrapKind::BadCall),
    ] {
        assert_eq!(failure_of(&start(body)).await, Failure::Trap { kind }, "{body}");
    }
}

#[tokio::test]
async fn a_start_section_is_bounded_like_the_rest() {
    let program = wat(r#"(module (func $s (loop br 0)) (start $s) (func (export "_start")))"#);
    let mut job = job(&program, &[]);
    job.limits.wall_max = std::time::Duration::from_millis(200);
    assert_eq!(end_of(job).await.unwrap_err().code(), "timeout");
}

#[tokio::test]
async fn memory_is_limited_at_the_start_and_over_all_memories() {
    let refused = Failure::MemoryLimit { limit_bytes: 16 << 20 };
    let large = wat(r#"(module (memory 257) (func (export "_start")))"#);
    assert_eq!(failure_of(&large).await, refused);
    let two = wat(r#"(module (memory 128) (memory 129) (func (export "_start")))"#);
    assert_eq!(failure_of(&two).await, refused);
    let fits = wat(r#"(module (memory 128) (memory 128) (func (export "_start")))"#);
    end_of(job(&fits, &[])).await.unwrap();
    let table = wat(r#"(module (table 1048577 funcref) (func (export "_start")))"#);
    assert_eq!(failure_of(&table).await, refused);
}

#[tokio::test]
async fn a_guest_that_takes_a_refusal_well_succeeds() {
    let program = start("i32.const 65000 memory.grow drop");
    end_of(job(&program, &[])).await.unwrap();
    let program = start("i32.const 65000 memory.grow drop unreachable");
    assert_eq!(failure_of(&program).await.code(), "memory_limit");
}

#[tokio::test]
async fn fuel_is_counted_where_it_is_limited() {
    let device = Device::wasm();
    let mut loops = job(&start("(loop br 0)"), &[]);
    loops.limits.fuel_max = Some(100_000);
    let outcome = device.run(loops).await;
    assert_eq!(outcome.end.unwrap_err(), Failure::OutOfFuel { limit: 100_000 });
    assert_eq!(outcome.metrics.fuel_used, Some(100_000));

    let program = start("i32.const 1 drop");
    let mut metered = job(&program, &[]);
    metered.limits.fuel_max = Some(100_000);
    let outcome = device.run(metered).await;
    outcome.end.unwrap();
    assert!(outcome.metrics.fuel_used.is_some_and(|used| used > 0 && used < 100));
    let outcome = device.run(job(&program, &[])).await;
    outcome.end.unwrap();
    assert_eq!(outcome.metrics.fuel_used, None);
}

#[tokio::test]
async fn the_built_in_client_runs_and_without_data_it_fails() {
    let device = Device::wasm();
    let outcome = device.run(job(&Program::builtin(), &[])).await;
    assert_eq!(outcome.end.unwrap_err(), Failure::ExitCode { code: 1 });
    assert_ne!(outcome.stderr_tail, "", "it says why");
}
