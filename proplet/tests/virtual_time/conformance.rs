//! What the live executor promises of every run, promised here, too: limits, ends, and what a guest
//! can see and reach.

use bytes::Bytes;
use proplet::executor::{Failure, OutputKind, Program, TrapKind, virtual_time::VirtualJob};

use crate::guests::{Lab, data, job, printed, probes, wat};

/// Tells the story with every form of the probe.
fn everywhere(story: impl Fn(&Lab, &Program)) {
    let lab = Lab::new();
    for (_, probe) in probes() {
        story(&lab, &probe);
        let next = lab.run(&job(&probe, &["update"])).end.unwrap();
        assert_eq!(next.update_file.as_deref(), Some(&b"tensors"[..]), "the next job runs");
    }
}

fn failure(lab: &Lab, probe: &Program, args: &[&str]) -> Failure {
    lab.run(&job(probe, args)).end.unwrap_err()
}

#[test]
fn a_guest_sees_what_it_sees_live() {
    everywhere(|lab, probe| {
        let mut job = job(probe, &["world", "two words", ""]);
        job.env.insert("ROUND_ID".into(), "r-1".into());
        job.env.insert("HYPERPARAMS".into(), "{\"lr\":0.1,\n \"x\":\"=é\"}".into());
        job.env.insert("UPDATE_PATH".into(), "/etc/passwd".into());
        job.model = Some("weights".into());
        let live = lab.run_live(&job, &[]).end.unwrap();
        let here = lab.run(&job);
        assert_eq!(printed(&here), String::from_utf8(live.stdout).unwrap());
        assert!(here.memory_bytes_peak > 0);
    });
}

#[test]
fn a_guest_reads_its_model_and_data_and_reaches_nothing_else() {
    everywhere(|lab, probe| {
        let files = [("train.csv", "1,2,3")];
        let mut job = job(probe, &["files"]);
        job.model = Some("weights".into());
        job.data = Some(data(&files));
        let here = lab.run(&job);
        let lines: Vec<_> = printed(&here).lines().collect();
        assert_eq!(lines[..2], ["model weights", "data 1,2,3"]);
        assert_eq!(lines.len(), 16);
        assert!(lines[2..].iter().all(|line| line.ends_with(": refused")), "{lines:?}");
        let live = lab.run_live(&job, &files).end.unwrap();
        assert_eq!(printed(&here), String::from_utf8(live.stdout).unwrap());
    });
}

#[test]
fn an_environment_that_no_guest_can_have_is_refused() {
    everywhere(|lab, probe| {
        for (name, value) in [("", "x"), ("A=B", "x"), ("A", "x\0y")] {
            let mut job = job(probe, &["world"]);
            job.env.insert(name.into(), value.into());
            let expected = Failure::Environment { name: name.into() };
            assert_eq!(lab.run(&job).end.unwrap_err(), expected);
        }
    });
}

#[test]
fn guests_that_go_too_far_are_stopped_as_they_are_live() {
    everywhere(|lab, probe| {
        let out = |kind| Failure::OutputTooLarge { kind, limit_bytes: 1 << 20 };
        let memory = Failure::MemoryLimit { limit_bytes: 16 << 20 };
        for (word, expected) in [
            ("eat", memory),
            ("flood-stdout", out(OutputKind::Stdout)),
            ("flood-files", out(OutputKind::Files)),
            ("many-files", out(OutputKind::Files)),
            ("link", Failure::UpdateNotAFile),
        ] {
            assert_eq!(failure(lab, probe, &[word]), expected, "{word}");
        }
        for word in ["loop", "sleep"] {
            let mut endless = job(probe, &[word]);
            endless.limits.wall_max = std::time::Duration::from_millis(200);
            let outcome = lab.run(&endless);
            let limit = endless.limits.wall_max;
            assert_eq!(outcome.end.unwrap_err(), Failure::Timeout { limit }, "{word}");
            assert_eq!(outcome.virtual_us, 200_000, "{word}");
        }
        let mut small = job(probe, &["update"]);
        small.limits.update_bytes_max = 6;
        let expected = Failure::OutputTooLarge { kind: OutputKind::Files, limit_bytes: 6 };
        assert_eq!(lab.run(&small).end.unwrap_err(), expected);
    });
}

#[test]
fn a_guest_may_print_as_much_as_its_limit_and_not_a_byte_more() {
    everywhere(|lab, probe| {
        let printed = printed(&lab.run(&job(probe, &["world"]))).len();
        for (limit, fits) in [(printed, true), (printed - 1, false)] {
            let mut job = job(probe, &["world"]);
            job.limits.stdout_bytes_max = limit;
            assert_eq!(lab.run(&job).end.is_ok(), fits, "limit {limit} of {printed}");
        }
    });
}

#[test]
fn a_panic_an_exit_code_and_endless_recursion_are_told_apart() {
    everywhere(|lab, probe| {
        let outcome = lab.run(&job(probe, &["panic"]));
        assert_eq!(outcome.end.unwrap_err(), Failure::Trap { kind: TrapKind::Unreachable });
        assert!(outcome.stderr_tail.contains("the guest gives up"), "{}", outcome.stderr_tail);
        lab.run(&job(probe, &["exit", "0"])).end.unwrap();
        assert_eq!(failure(lab, probe, &["recurse"]).code(), "trap");
        assert_eq!(failure(lab, probe, &["exit", "3"]).code(), "exit_code");
        let outcome = lab.run(&job(probe, &["flood-stderr"]));
        outcome.end.unwrap();
        assert!(outcome.stderr_tail.ends_with("line 99999\nthe last line\n"));
    });
}

/// Every failure of a module, live and in virtual time.
#[test]
fn modules_fail_as_they_fail_live() {
    let lab = Lab::new();
    let start = |body: &str| {
        wat(&format!(
            r#"(module
                (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                (import "wasi_snapshot_preview1" "random_get"
                    (func $random (param i32 i32) (result i32)))
                (import "wasi_snapshot_preview1" "clock_time_get"
                    (func $now (param i32 i64 i32) (result i32)))
                (memory (export "memory") 1) (table 1 funcref)
                (func $start (export "_start") {body}))"#
        ))
    };
    let errno = |call: &str| start(&format!("{call} call $exit"));
    let programs = [
        Program::new(&b"no program"[..]),
        Program::new(&b"\0asm\x01\0\0\0garbage"[..]),
        wat("(module)"),
        wat(r#"(module (import "env" "system" (func)) (func (export "_start")))"#),
        wat(r#"(module (func (export "run") (result i32 f64) i32.const 7 f64.const 1))"#),
        wat(r#"(module (memory 257) (func (export "_start")))"#),
        wat(r#"(module (table 1048577 funcref) (func (export "_start")))"#),
        wat(r#"(module (global $ready (mut i32) i32.const 0)
            (func (export "_initialize") i32.const 1 global.set $ready)
            (func (export "run") (if (i32.eqz (global.get $ready)) (then unreachable))))"#),
        wat(r#"(module (import "wasi_snapshot_preview1" "random_get"
                (func $random (param i32 i32) (result i32)))
            (func (export "_start") (drop (call $random (i32.const 0) (i32.const 0)))))"#),
        start("unreachable"),
        start("i32.const -1 i32.load drop"),
        start("call $start"),
        start("i32.const 1 i32.const 0 i32.div_u drop"),
        start("f32.const nan i32.trunc_f32_s drop"),
        start("i32.const 0 call_indirect"),
        start("i32.const 65000 memory.grow drop"),
        start("i32.const 65000 memory.grow drop unreachable"),
        start("i32.const 0 call $exit"),
        start("i32.const 126 call $exit"),
        start("i32.const -1 call $exit"),
        // A clock of the processor's time, and one that is none.
        errno("i32.const 2 i64.const 0 i32.const 0 call $now"),
        errno("i32.const 9 i64.const 0 i32.const 0 call $now"),
    ];
    for program in programs {
        let job = job(&program, &[]);
        let live = lab.run_live(&job, &[]).end;
        assert_eq!(lab.run(&job).end.err(), live.err(), "{program:?}");
    }
    let adds = wat(r#"(module (func (export "run") (param i32 i64) (result i64)
        (if (i32.ne (local.get 0) (i32.const 3)) (then unreachable)) local.get 1))"#);
    for inputs in ["[3, 4]", "[4, 4]", "[3]", "3"] {
        let mut job = job(&adds, &[]);
        job.env.insert("INPUTS".into(), inputs.into());
        let live = lab.run_live(&job, &[]).end;
        assert_eq!(lab.run(&job).end.err(), live.err(), "{inputs}");
    }
}

#[test]
fn a_pointer_that_leads_out_of_memory_ends_the_guest() {
    let lab = Lab::new();
    for body in [
        "i32.const 65532 i32.const 8 call $random drop",
        "i32.const -1 i32.const -1 call $random drop",
    ] {
        let program = wat(&format!(
            r#"(module (import "wasi_snapshot_preview1" "random_get"
                    (func $random (param i32 i32) (result i32)))
                (memory (export "memory") 1) (func (export "_start") {body}))"#
        ));
        assert_eq!(lab.run(&job(&program, &[])).end.unwrap_err().code(), "trap", "{body}");
    }
}

/// Work that the host does for a guest is not free: else a guest could hold a thread for ever.
#[test]
fn random_bytes_cost_fuel() {
    let program = wat(r#"(module (import "wasi_snapshot_preview1" "random_get"
                (func $random (param i32 i32) (result i32)))
            (memory (export "memory") 100)
            (func (export "_start")
                (loop (drop (call $random (i32.const 0) (i32.const 6000000))) br 0)))"#);
    let mut greedy = job(&program, &[]);
    greedy.limits.fuel_max = Some(10_000_000);
    let outcome = Lab::new().run(&greedy);
    assert_eq!(outcome.end.unwrap_err(), Failure::OutOfFuel { limit: 10_000_000 });
}

#[test]
fn runs_leave_nothing_behind_on_the_host() {
    let lab = Lab::new();
    let (_, probe) = &probes()[0];
    let mut job: VirtualJob = job(probe, &["update"]);
    job.model = Some(Bytes::from_static(b"weights"));
    lab.run(&job).end.unwrap();
    let left: Vec<_> = std::fs::read_dir(lab.dir.path()).unwrap().collect();
    let [Ok(only)] = &left[..] else { panic!("{left:?}") };
    assert_eq!(only.file_name(), "compiled");
}
