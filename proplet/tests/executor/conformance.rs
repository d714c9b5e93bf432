//! The contract of [`Executor`], over the list of executors.

use std::time::Duration;

use proplet::executor::{
    EXECUTORS, Failure, Model, Output, OutputKind, Program, Settings, TrapKind,
};

use crate::device::{Device, job, probes};

/// Tells the story on every executor, with every form of the probe.
fn everywhere(story: impl AsyncFn(&Device, &Program)) {
    for entry in EXECUTORS {
        for (form, probe) in probes(entry.name) {
            eprintln!("executor {}, probe {form}", entry.name);
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let device = Device::new(entry);
            assert_eq!(device.executor.name(), entry.name);
            runtime.block_on(async {
                story(&device, &probe).await;
                the_next_job_runs(&device, &probe).await;
            });
            assert_eq!(device.scratch(), Vec::<String>::new(), "{form} left something behind");
        }
    }
}

async fn the_next_job_runs(device: &Device, probe: &Program) {
    let output = device.run(job(probe, &["update"])).await.end.unwrap();
    assert_eq!(output.update_file.as_deref(), Some(&b"tensors"[..]));
}

fn lines(output: &Output) -> Vec<&str> {
    std::str::from_utf8(&output.stdout).unwrap().lines().collect()
}

/// Runs the probe with this word, and says why it failed.
async fn failure(device: &Device, probe: &Program, args: &[&str]) -> Failure {
    device.run(job(probe, args)).await.end.unwrap_err()
}

#[test]
fn a_guest_sees_its_arguments_and_environment_and_nothing_of_the_hosts() {
    everywhere(async |device, probe| {
        let mut job = job(probe, &["world", "two words", ""]);
        job.env.insert("ROUND_ID".into(), "r-1".into());
        job.env.insert("HYPERPARAMS".into(), "{\"lr\":0.1,\n \"x\":\"=é\"}".into());
        job.env.insert("UPDATE_PATH".into(), "/etc/passwd".into());
        let outcome = device.run(job).await;
        let output = outcome.end.unwrap();
        let expected = [
            "arg world",
            "arg two words",
            "arg ",
            "env HYPERPARAMS={\"lr\":0.1,",
            " \"x\":\"=é\"}",
            "env ROUND_ID=r-1",
            "env UPDATE_PATH=/out/update",
            "stdin 0",
        ];
        assert_eq!(lines(&output), expected);
        assert_eq!(output.update_file, None);
        let metrics = outcome.metrics;
        assert!(metrics.memory_bytes_peak > 0);
        assert!(metrics.wall_us > 0 && metrics.wall_us >= metrics.start_us, "{metrics:?}");
    });
}

#[test]
fn a_guest_reads_its_model_and_data_and_reaches_nothing_else() {
    everywhere(async |device, probe| {
        let mut job = job(probe, &["files"]);
        job.model = Some("weights".into());
        job.data_dir = Some(device.path("data"));
        let output = device.run(job).await.end.unwrap();
        let lines = lines(&output);
        assert_eq!(lines[..2], ["model weights", "data 1,2,3"]);
        assert_eq!(lines.len(), 16);
        for line in &lines[2..] {
            assert!(line.ends_with(": refused"), "{line}");
        }
        assert_eq!(std::fs::read(device.path("data/train.csv")).unwrap(), b"1,2,3");
    });
}

#[test]
fn a_model_may_be_a_file_which_stays_as_it_is() {
    everywhere(async |device, probe| {
        std::fs::write(device.path("model"), "weights").unwrap();
        let mut job = job(probe, &["files"]);
        job.model = Some(Model::File(device.path("model")));
        job.data_dir = Some(device.path("data"));
        let output = device.run(job.clone()).await.end.unwrap();
        let lines = lines(&output);
        assert_eq!(lines[0], "model weights");
        assert!(lines[2..].iter().all(|line| line.ends_with(": refused")), "{lines:?}");
        assert_eq!(std::fs::read(device.path("model")).unwrap(), b"weights");
        job.model = Some(Model::File(device.path("nowhere")));
        assert_eq!(device.run(job).await.end.unwrap_err().code(), "host");
    });
}

#[test]
fn a_long_update_is_handed_over_as_a_file_that_goes_when_nobody_wants_it() {
    everywhere(async |device, probe| {
        let entry = EXECUTORS.iter().find(|it| it.name == device.executor.name()).unwrap();
        let below = Settings::below(device.dir.path());
        let executor = (entry.build)(&Settings { update_inline_bytes_max: 6, ..below.clone() });
        let output = executor.run(job(probe, &["update"])).await.end.unwrap();
        assert_eq!(output.update_file, None);
        let left = output.update_left.unwrap();
        assert_eq!(std::fs::read(left.path()).unwrap(), b"tensors");
        assert_eq!(device.scratch().len(), 1);
        drop(left);
        assert_eq!(device.scratch(), Vec::<String>::new());
        // What a process left that was killed goes with the next one.
        std::fs::write(below.scratch_dir.join("update-1-0"), "tensors").unwrap();
        let executor = (entry.build)(&Settings { update_inline_bytes_max: 7, ..below });
        assert_eq!(device.scratch(), Vec::<String>::new());
        let output = executor.run(job(probe, &["update"])).await.end.unwrap();
        assert_eq!(output.update_file.as_deref(), Some(&b"tensors"[..]));
    });
}

#[test]
fn a_missing_data_directory_is_a_failure_and_never_an_empty_one() {
    everywhere(async |device, probe| {
        let mut job = job(probe, &["world"]);
        job.data_dir = Some(device.path("nowhere"));
        let failure = device.run(job).await.end.unwrap_err();
        assert_eq!(failure.code(), "data_dir");
        assert!(failure.to_string().contains("nowhere"), "{failure}");
    });
}

#[test]
fn an_environment_that_no_guest_can_have_is_refused() {
    everywhere(async |device, probe| {
        for (name, value) in [("", "x"), ("A=B", "x"), ("A", "x\0y")] {
            let mut job = job(probe, &["world"]);
            job.env.insert(name.into(), value.into());
            let failure = device.run(job).await.end.unwrap_err();
            assert_eq!(failure, Failure::Environment { name: name.into() });
        }
    });
}

#[test]
fn a_guest_that_runs_for_ever_meets_its_time_limit() {
    everywhere(async |device, probe| {
        // Once computing, and once asleep in the host, where no instruction is executed.
        for word in ["loop", "sleep"] {
            let mut job = job(probe, &[word]);
            job.limits.wall_max = Duration::from_millis(200);
            let outcome = device.run(job).await;
            let limit = Duration::from_millis(200);
            assert_eq!(outcome.end.unwrap_err(), Failure::Timeout { limit }, "{word}");
        }
    });
}

#[test]
fn a_cancelled_guest_ends() {
    everywhere(async |device, probe| {
        for word in ["loop", "sleep"] {
            let job = job(probe, &[word]);
            let cancel = job.cancel.clone();
            let canceller = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                cancel.cancel();
            };
            let (outcome, ()) = tokio::join!(device.run(job), canceller);
            assert_eq!(outcome.end.unwrap_err(), Failure::Cancelled, "{word}");
        }
    });
}

#[test]
fn a_job_cancelled_before_it_starts_does_not_run() {
    everywhere(async |device, probe| {
        let job = job(probe, &["update"]);
        job.cancel.cancel();
        assert_eq!(device.run(job).await.end.unwrap_err(), Failure::Cancelled);
    });
}

#[test]
fn a_guest_nobody_waits_for_ends() {
    for entry in EXECUTORS {
        for (_, probe) in probes(entry.name) {
            let device = Device::new(entry);
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let run = device.run(job(&probe, &["loop"]));
                let patience = Duration::from_millis(50);
                assert!(tokio::time::timeout(patience, run).await.is_err(), "it loops");
            });
            // Waits for the guest's thread.
            drop(runtime);
            assert_eq!(device.scratch(), Vec::<String>::new());
        }
    }
}

#[test]
fn a_computing_guest_leaves_the_runtime_alone() {
    for entry in EXECUTORS {
        for (_, probe) in probes(entry.name) {
            let device = Device::new(entry);
            // One thread for everything: were the guest on it, nobody could cancel.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let job = job(&probe, &["loop"]);
                let cancel = job.cancel.clone();
                let others = async {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    cancel.cancel();
                };
                let (outcome, ()) = tokio::join!(device.run(job), others);
                assert_eq!(outcome.end.unwrap_err(), Failure::Cancelled);
            });
        }
    }
}

#[test]
fn a_guest_that_eats_memory_meets_its_limit() {
    everywhere(async |device, probe| {
        let outcome = device.run(job(probe, &["eat"])).await;
        assert_eq!(outcome.end.unwrap_err(), Failure::MemoryLimit { limit_bytes: 16 << 20 });
        assert!(outcome.metrics.memory_bytes_peak <= 16 << 20);
    });
}

#[test]
fn a_guest_that_prints_without_end_is_stopped_and_nothing_is_handed_on() {
    everywhere(async |device, probe| {
        let expected = Failure::OutputTooLarge { kind: OutputKind::Stdout, limit_bytes: 1 << 20 };
        assert_eq!(failure(device, probe, &["flood-stdout"]).await, expected);
    });
}

#[test]
fn a_guest_may_print_as_much_as_its_limit_and_not_a_byte_more() {
    everywhere(async |device, probe| {
        let printed = device.run(job(probe, &["world"])).await.end.unwrap().stdout.len();
        for (limit, fits) in [(printed, true), (printed - 1, false)] {
            let mut job = job(probe, &["world"]);
            job.limits.stdout_bytes_max = limit;
            let end = device.run(job).await.end;
            assert_eq!(end.is_ok(), fits, "limit {limit} of {printed}");
        }
    });
}

#[test]
fn a_guest_that_writes_files_without_end_is_stopped() {
    everywhere(async |device, probe| {
        let expected = Failure::OutputTooLarge { kind: OutputKind::Files, limit_bytes: 1 << 20 };
        for word in ["flood-files", "many-files"] {
            assert_eq!(failure(device, probe, &[word]).await, expected, "{word}");
        }
    });
}

#[test]
fn an_update_larger_than_its_limit_is_refused() {
    everywhere(async |device, probe| {
        let mut job = job(probe, &["update"]);
        job.limits.update_bytes_max = 6;
        let expected = Failure::OutputTooLarge { kind: OutputKind::Files, limit_bytes: 6 };
        assert_eq!(device.run(job).await.end.unwrap_err(), expected);
    });
}

#[test]
fn a_link_in_place_of_the_update_leads_nowhere() {
    everywhere(async |device, probe| {
        assert_eq!(failure(device, probe, &["link"]).await, Failure::UpdateNotAFile);
    });
}

#[test]
fn what_a_guest_says_on_standard_error_is_bounded_and_its_end_is_kept() {
    everywhere(async |device, probe| {
        let outcome = device.run(job(probe, &["flood-stderr"])).await;
        outcome.end.unwrap();
        assert!(outcome.stderr_tail.ends_with("line 99999\nthe last line\n"));
        assert!(outcome.stderr_tail.len() <= 4096);
    });
}

#[test]
fn a_panic_an_exit_code_and_endless_recursion_are_told_apart() {
    everywhere(async |device, probe| {
        let outcome = device.run(job(probe, &["panic"])).await;
        assert_eq!(outcome.end.unwrap_err(), Failure::Trap { kind: TrapKind::Unreachable });
        assert!(outcome.stderr_tail.contains("the guest gives up"), "{}", outcome.stderr_tail);

        device.run(job(probe, &["exit", "0"])).await.end.unwrap();
        // Which bound a compiled recursion meets first, its own stack or the machine's, is its
        // compiler's choice.
        assert_eq!(failure(device, probe, &["recurse"]).await.code(), "trap");
        let exit = failure(device, probe, &["exit", "3"]).await;
        assert_eq!(exit.code(), "exit_code");
    });
}
