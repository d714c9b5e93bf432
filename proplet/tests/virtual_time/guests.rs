//! The guests to try, and a lab to run them in.

use std::{
    collections::BTreeMap, env, fs, path::PathBuf, process::Command, sync::Arc, time::Duration,
};

use bytes::Bytes;
use proplet::executor::{
    EXECUTORS, Executor, Job, Limits, Model, Outcome, Program, Settings,
    virtual_time::{DataSet, FuelRate, VirtualJob, VirtualOutcome, VirtualSettings, VirtualWasm},
};
use protocol::Digest;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A moment in 2026.
pub(crate) const START_US: u64 = 1_780_000_000_000_000;

const PROBE: &str = include_str!("../executor/probe.rs");
const SLEEPER: &str = include_str!("sleeper.rs");
const SLEEPER_IN_C: &str = include_str!("sleeper.c");

pub(crate) struct Lab {
    pub(crate) dir: TempDir,
    pub(crate) virtual_wasm: VirtualWasm,
    live: Arc<dyn Executor>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let wasm = EXECUTORS.iter().find(|entry| entry.name == "wasm").unwrap();
        let live = (wasm.build)(&Settings::below(dir.path()));
        let virtual_wasm = VirtualWasm::new(&VirtualSettings::below(dir.path())).unwrap();
        Self { dir, virtual_wasm, live }
    }

    pub(crate) fn run(&self, job: &VirtualJob) -> VirtualOutcome {
        self.virtual_wasm.run(job)
    }

    /// The same job, in real time.
    pub(crate) fn run_live(&self, job: &VirtualJob, data: &[(&str, &str)]) -> Outcome {
        let data_dir = self.dir.path().join("data");
        fs::create_dir_all(&data_dir).unwrap();
        for (name, text) in data {
            let path = data_dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(self.live.run(Job {
            label: job.label.clone(),
            program: job.program.clone(),
            args: job.args.clone(),
            env: job.env.clone(),
            model: job.model.clone().map(Model::Bytes),
            variates: job.variates.clone(),
            data_dir: job.data.is_some().then_some(data_dir),
            limits: job.limits.clone(),
            cancel: CancellationToken::new(),
        }))
    }
}

/// A job with little memory and output, on a device that burns 1,000 units of fuel in a microsecond.
pub(crate) fn job(program: &Program, args: &[&str]) -> VirtualJob {
    VirtualJob {
        label: "task-1".into(),
        program: program.clone(),
        args: args.iter().map(|&arg| arg.into()).collect(),
        env: BTreeMap::new(),
        model: None,
        variates: None,
        data: None,
        start_us: START_US,
        seed: 7,
        rate: FuelRate::per_us(1_000).unwrap(),
        limits: Limits {
            memory_bytes_max: 16 << 20,
            wall_max: Duration::from_secs(600),
            stdout_bytes_max: 1 << 20,
            update_bytes_max: 1 << 20,
            ..Limits::default()
        },
    }
}

pub(crate) fn data(files: &[(&str, &str)]) -> DataSet {
    let files = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), Bytes::copy_from_slice(text.as_bytes())));
    DataSet::new(files.collect()).unwrap()
}

pub(crate) fn wat(text: &str) -> Program {
    Program::new(wat::parse_str(text).unwrap())
}

pub(crate) fn printed(outcome: &VirtualOutcome) -> &str {
    let output = outcome.end.as_ref();
    let output = output.unwrap_or_else(|failure| panic!("{failure}: {}", outcome.stderr_tail));
    std::str::from_utf8(&output.stdout).unwrap()
}

/// What does as its first argument says, in every form.
pub(crate) fn probes() -> Vec<(&'static str, Program)> {
    every_target("probe", PROBE)
}

/// What does with files all that can be done with them.
pub(crate) fn disks() -> Vec<(&'static str, Program)> {
    every_target("disk", include_str!("disk.rs"))
}

/// What lists its data.
pub(crate) fn listers() -> Vec<(&'static str, Program)> {
    every_target("lister", include_str!("lister.rs"))
}

fn every_target(name: &str, source: &str) -> Vec<(&'static str, Program)> {
    TARGETS.iter().map(|target| (*target, rust(name, source, target))).collect()
}

/// What computes as long as its argument says, in two ways.
pub(crate) fn workers() -> Vec<(&'static str, Program)> {
    vec![
        ("maps", rust("maps", include_str!("maps.rs"), "wasm32-wasip1")),
        ("matrices", c("matrices", include_str!("matrices.c"))),
    ]
}

/// What sleeps for ten seconds and prints clocks and random numbers, in every form and language.
pub(crate) fn sleepers() -> Vec<(&'static str, Program)> {
    let mut all = every_target("sleeper", SLEEPER);
    all.push(("C", c("sleeper", SLEEPER_IN_C)));
    all
}

const TARGETS: &[&str] = &["wasm32-wasip1", "wasm32-wasip2"];

fn rust(name: &str, source: &str, target: &str) -> Program {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["--edition=2024", "-Copt-level=1", "-Cpanic=abort", "--target", target]);
    build(&format!("{name}.rs"), source, target, command)
}

fn c(name: &str, source: &str) -> Program {
    let mut command = Command::new("clang");
    command.args(["--target=wasm32-wasi", "-O1"]);
    build(&format!("{name}.c"), source, "c", command)
}

/// Builds a guest, or takes it from an earlier run of the tests with the same source.
fn build(file: &str, source: &str, form: &str, mut command: Command) -> Program {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let built = dir.join(format!("{file}-{form}-{}.wasm", Digest::of(source.as_bytes())));
    if !built.exists() {
        let own = tempfile::tempdir_in(&dir).unwrap();
        let (source_file, out) = (own.path().join(file), own.path().join("guest.wasm"));
        fs::write(&source_file, source).unwrap();
        command.arg("-o").arg(&out).arg(&source_file);
        let output = command.output();
        let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}; {NEEDS}"));
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {words}; {NEEDS}");
        fs::rename(out, &built).unwrap();
    }
    Program::new(fs::read(built).unwrap())
}

const NEEDS: &str = "guests are built with `rustup target add wasm32-wasip1 wasm32-wasip2`, and \
                     those in C with the packages clang, lld and wasi-libc";
