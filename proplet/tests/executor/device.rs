//! A device to run jobs on: directories of its own, an executor, and the programs to try.

use std::{
    collections::BTreeMap, env, fs, path::PathBuf, process::Command, sync::Arc, time::Duration,
};

use proplet::executor::{EXECUTORS, Entry, Executor, Job, Limits, Outcome, Program, Settings};
use protocol::Digest;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const PROBE: &str = include_str!("probe.rs");

pub(crate) struct Device {
    pub(crate) dir: TempDir,
    pub(crate) executor: Arc<dyn Executor>,
}

impl Device {
    pub(crate) fn new(entry: &Entry) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::write(dir.path().join("data/train.csv"), "1,2,3").unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("../secret", dir.path().join("data/link")).unwrap();
        let executor = (entry.build)(&Settings::below(dir.path()));
        Self { dir, executor }
    }

    pub(crate) fn wasm() -> Self {
        Self::new(EXECUTORS.iter().find(|entry| entry.name == "wasm").unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Everything a job leaves behind while none runs.
    pub(crate) fn scratch(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("scratch")) else { return Vec::new() };
        entries.map(|it| it.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    pub(crate) async fn run(&self, job: Job) -> Outcome {
        self.executor.run(job).await
    }
}

/// A job with little memory and output, and much time.
pub(crate) fn job(program: &Program, args: &[&str]) -> Job {
    Job {
        label: "task-1".into(),
        program: program.clone(),
        args: args.iter().map(|&arg| arg.into()).collect(),
        env: BTreeMap::new(),
        model: None,
        variates: None,
        data_dir: None,
        limits: Limits {
            memory_bytes_max: 16 << 20,
            wall_max: Duration::from_secs(600),
            stdout_bytes_max: 1 << 20,
            update_bytes_max: 1 << 20,
            ..Limits::default()
        },
        cancel: CancellationToken::new(),
    }
}

pub(crate) fn wat(text: &str) -> Program {
    Program::new(wat::parse_str(text).unwrap())
}

/// The probe, in every form that the executor runs.
pub(crate) fn probes(executor: &str) -> Vec<(&'static str, Program)> {
    match executor {
        "wasm" => ["wasm32-wasip1", "wasm32-wasip2"].map(|target| (target, probe(target))).into(),
        other => panic!("say here how to build the probe for the executor {other:?}"),
    }
}

/// The probe for one target; kept between runs of the tests, under the digest of its source.
fn probe(target: &str) -> Program {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let name = format!("probe-{target}-{}", Digest::of(PROBE.as_bytes()));
    let built = dir.join(&name).with_extension("wasm");
    if !built.exists() {
        let own = tempfile::tempdir_in(&dir).unwrap();
        let (source, out) = (own.path().join("probe.rs"), own.path().join("probe.wasm"));
        fs::write(&source, PROBE).unwrap();
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(rustc);
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.args(["--edition=2024", "-Copt-level=1", "-Cpanic=abort", "--target", target]);
        let status = command.arg("-o").arg(&out).arg(&source).status().unwrap();
        assert!(status.success(), "{command:?} needs: rustup target add {target}");
        fs::rename(out, &built).unwrap();
    }
    Program::new(fs::read(built).unwrap())
}
