//! What runs a workload: the seam every executor stands behind, and the list of them.
//!
//! An executor is given a [`Job`] and answers with one [`Outcome`]. It knows no topics, no rounds
//! and no tasks: it runs bytes inside the limits that the owner of the device has set.
//!
//! # The contract of every executor
//! - The guest sees the job's arguments and environment, and nothing of the host's.
//! - It finds the base model in the read-only file that [`ENV_MODEL_PATH`] names, the device's data
//!   in the read-only directory that [`ENV_DATA_DIR`] names, and may write one file to the path in
//!   [`ENV_UPDATE_PATH`]. A job with [`Variates`] has their files, too, at [`ENV_CONTROL_PATH`] and,
//!   where there is a state, [`ENV_STATE_PATH`], and may write one more file to the path in
//!   [`ENV_STATE_OUT_PATH`]. It reaches no other file and no network.
//! - Its output comes back whole or not at all: too much of it ends the guest.
//! - Memory, time and output are bounded, and each bound has its own [`Failure`].
//! - Cancelling the job, or dropping the future, ends the guest.
//! - However a guest ends, the next job runs.

mod cpu;
mod failure;
mod sandbox;
mod stopwatch;
pub mod virtual_time;
mod wasm;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use protocol::Digest;
use tokio_util::sync::CancellationToken;

pub use failure::{Failure, OutputKind, TrapKind};
pub use sandbox::LeftFile;
pub use wasm::inspect::{Given, Import, Inspection, inspect};

/// Environment variable with the guest's path of the base model.
pub const ENV_MODEL_PATH: &str = "MODEL_PATH";
/// Environment variable with the guest's path of the device's data.
pub const ENV_DATA_DIR: &str = "DATA_DIR";
/// Environment variable with the path at which the guest may leave a binary update.
pub const ENV_UPDATE_PATH: &str = "UPDATE_PATH";
/// Environment variable with the guest's path of the server's control variate.
pub const ENV_CONTROL_PATH: &str = "CONTROL_PATH";
/// Environment variable with the guest's path of the state that one of its kind has left before.
pub const ENV_STATE_PATH: &str = "STATE_PATH";
/// Environment variable with the path at which the guest leaves its state.
pub const ENV_STATE_OUT_PATH: &str = "STATE_OUT_PATH";
/// What a job's own environment cannot set.
pub(crate) const PATHS: [&str; 6] = [
    ENV_DATA_DIR,
    ENV_MODEL_PATH,
    ENV_UPDATE_PATH,
    ENV_CONTROL_PATH,
    ENV_STATE_PATH,
    ENV_STATE_OUT_PATH,
];

/// Environment variable with the task's inputs, a JSON array; absent if there are none. A module
/// that is entered at a `run` with numbers for parameters gets them from here, in order.
pub const ENV_INPUTS: &str = "INPUTS";

/// Every executor. To add one: a file in `executor/`, and one line here.
pub const EXECUTORS: &[Entry] = &[Entry { name: "wasm", build: wasm::build }];

/// The built-in federated learning client, a `wasm32-wasip1` module.
pub const BUILTIN_FL_CLIENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/fl-client.wasm"));

/// An executor in the list, not yet built.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What the setting calls it.
    pub name: &'static str,
    /// Makes one; cheap, the expensive parts are made at the first job.
    pub build: fn(&Settings) -> Arc<dyn Executor>,
}

/// The end of a job, in the future.
pub type Run = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What runs workloads.
pub trait Executor: fmt::Debug + Send + Sync {
    /// Its name in [`EXECUTORS`].
    fn name(&self) -> &'static str;

    /// Runs the job to its end. Needs a tokio runtime with timers, whose threads it does not block.
    fn run(&self, job: Job) -> Run;
}

/// What an executor needs to know once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where compiled programs are kept. Only this process may be able to write there: what lies
    /// in it is executed.
    pub cache_dir: PathBuf,
    /// How much may be kept there; the oldest go first.
    pub cache_bytes_max: u64,
    /// How many compiled programs are kept ready in memory.
    pub programs_ready_max: usize,
    /// Where each job gets a directory of its own for as long as it runs.
    pub scratch_dir: PathBuf,
    /// How deep a guest may recurse.
    pub stack_bytes_max: usize,
    /// A longer update is handed over as a file.
    pub update_inline_bytes_max: u64,
}

impl Settings {
    /// Settings that suit a small device, with everything below `state_dir`.
    pub fn below(state_dir: &std::path::Path) -> Self {
        Self {
            cache_dir: state_dir.join("compiled"),
            cache_bytes_max: 256 << 20,
            programs_ready_max: 4,
            scratch_dir: state_dir.join("scratch"),
            stack_bytes_max: 1 << 20,
            update_inline_bytes_max: u64::MAX,
        }
    }
}

/// A program as it was fetched: its bytes, and what they hash to.
#[derive(Clone)]
pub struct Program {
    digest: Digest,
    bytes: Arc<[u8]>,
}

impl Program {
    /// The program in `bytes`.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self { digest: Digest::of(&bytes), bytes }
    }

    /// The built-in federated learning client; hashed once, since every round asks for it.
    pub fn builtin() -> Self {
        static BUILTIN: OnceLock<Program> = OnceLock::new();
        BUILTIN.get_or_init(|| Self::new(BUILTIN_FL_CLIENT)).clone()
    }

    /// The SHA-256 of the bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The bytes themselves.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({}, {} bytes)", self.digest, self.bytes.len())
    }
}

/// A base model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Model {
    /// In memory.
    Bytes(Bytes),
    /// A file, which nobody writes to. The guest may be given the very same one.
    File(PathBuf),
}

impl From<&'static str> for Model {
    fn from(text: &'static str) -> Self {
        Self::Bytes(text.into())
    }
}

/// What a round with control variates gives a guest beside the base model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variates {
    /// The server's control variate, in the form of the base model.
    pub control: Bytes,
    /// What a guest has left before for the next of its kind.
    pub state: Option<Bytes>,
}

/// One run of a program.
#[derive(Clone, Debug)]
pub struct Job {
    /// Who it is for; marks the guest's lines in the log.
    pub label: String,
    /// What to run.
    pub program: Program,
    /// What follows the program's name on its command line.
    pub args: Vec<String>,
    /// The guest's whole environment, to which the executor adds the paths it hands over.
    pub env: BTreeMap<String, String>,
    /// The base model.
    pub model: Option<Model>,
    /// With these, the guest may leave a state.
    pub variates: Option<Variates>,
    /// The device's own data.
    pub data_dir: Option<PathBuf>,
    /// The owner's limits.
    pub limits: Limits,
    /// Ends the guest when cancelled.
    pub cancel: CancellationToken,
}

/// What the owner of the device allows one job.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Memory of the guest.
    pub memory_bytes_max: usize,
    /// Wall time from the guest's start; compiling is not counted.
    pub wall_max: Duration,
    /// Instructions, roughly; counting them makes the guest slower, and none is the default.
    pub fuel_max: Option<u64>,
    /// What it may print.
    pub stdout_bytes_max: usize,
    /// How much of its standard error is passed on to the log.
    pub stderr_bytes_max: usize,
    /// What it may write to files.
    pub update_bytes_max: u64,
    /// The longest state that it may leave, of what it writes to files.
    pub state_bytes_max: u64,
    /// Elements in its tables.
    pub table_elements_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 256 << 20,
            wall_max: Duration::from_secs(300),
            fuel_max: None,
            stdout_bytes_max: 16 << 20,
            stderr_bytes_max: 64 << 10,
            update_bytes_max: 64 << 20,
            state_bytes_max: 16 << 20,
            table_elements_max: 1 << 20,
        }
    }
}

/// How a job ended.
#[derive(Debug)]
pub struct Outcome {
    /// What the guest made, or why it did not.
    pub end: Result<Output, Failure>,
    /// What it took.
    pub metrics: Metrics,
    /// The last of what the guest wrote to standard error; the reason of a panic stands there.
    pub stderr_tail: String,
}

/// What a guest left behind when it succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// All that it printed.
    pub stdout: Vec<u8>,
    /// The file it wrote to [`ENV_UPDATE_PATH`].
    pub update_file: Option<Vec<u8>>,
    /// That file itself, instead, if it is longer than [`Settings::update_inline_bytes_max`].
    pub update_left: Option<Arc<LeftFile>>,
    /// The file it wrote to [`ENV_STATE_OUT_PATH`].
    pub state: Option<Vec<u8>>,
}

/// What a job took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Metrics {
    /// Where the executable form came from; none if the job did not get that far.
    pub origin: Option<Origin>,
    /// Time to have the executable form: a look-up, a load from disk, or a compilation.
    pub prepare_us: u64,
    /// Time from there to the first instruction of the guest's entry.
    pub start_us: u64,
    /// Time from the guest's start to its end.
    pub wall_us: u64,
    /// CPU time of the guest, where the system says.
    pub cpu_us: u64,
    /// Fuel used, where it is counted.
    pub fuel_used: Option<u64>,
    /// The most memory it had at once.
    pub memory_bytes_peak: u64,
}

/// Where the executable form of a program came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was made now.
    Compiled,
    /// It lay on disk, from this or an earlier process.
    Disk,
    /// It was ready in memory.
    Memory,
}

impl Origin {
    /// A stable word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compiled => "compiled",
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }
}
