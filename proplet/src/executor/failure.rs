//! The ways in which a job can fail, each with its own words and a stable code.

use std::{path::PathBuf, time::Duration};

/// Why a job made nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The bytes are no program of this executor.
    #[error("not a WebAssembly module or component: {size} bytes beginning with {start:02x?}")]
    NotWasm {
        /// How many bytes there were.
        size: usize,
        /// The first few.
        start: Vec<u8>,
    },
    /// The bytes are malformed, or use what this executor does not have.
    #[error("the program does not compile: {reason}")]
    Compile {
        /// What the compiler says.
        reason: String,
    },
    /// There is nothing to call.
    #[error("the program exports no {wanted}")]
    MissingExport {
        /// What would have been called.
        wanted: &'static str,
    },
    /// It wants something from the host that the sandbox does not have.
    #[error("the program wants what the sandbox does not have: {import}")]
    Link {
        /// The import, by name.
        import: String,
    },
    /// The guest did what the machine forbids.
    #[error("the guest trapped: {kind}")]
    Trap {
        /// What it did.
        kind: TrapKind,
    },
    /// The guest ended with a code other than zero.
    #[error("the guest ended with exit code {code}")]
    ExitCode {
        /// The code.
        code: i32,
    },
    /// It took too long.
    #[error("the guest ran longer than its limit of {} ms", limit.as_millis())]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// It used up its fuel.
    #[error("the guest used up its fuel of {limit}")]
    OutOfFuel {
        /// The limit.
        limit: u64,
    },
    /// It failed after more memory was refused to it.
    #[error("the guest wanted more memory than its limit of {limit_bytes} bytes")]
    MemoryLimit {
        /// The limit.
        limit_bytes: usize,
    },
    /// It made too much output.
    #[error("the guest made more {kind} than its limit of {limit_bytes} bytes")]
    OutputTooLarge {
        /// Which output.
        kind: OutputKind,
        /// The limit.
        limit_bytes: u64,
    },
    /// What it left at the update's path is not a plain file.
    #[error("what the guest left as its update is not a plain file")]
    UpdateNotAFile,
    /// What it left at the path of its state is not a plain file.
    #[error("what the guest left as its state is not a plain file")]
    StateNotAFile,
    /// Somebody cancelled it.
    #[error("the job was cancelled")]
    Cancelled,
    /// The job itself is malformed.
    #[error("the environment variable {name:?} cannot be given to a guest")]
    Environment {
        /// The variable.
        name: String,
    },
    /// The task's inputs are not what the program takes.
    #[error("{reason}")]
    Inputs {
        /// What is wrong with them, and what is taken.
        reason: String,
    },
    /// The device's data is not there. It is never replaced by anything else.
    #[error("the data directory {} cannot be opened: {reason}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The host failed, not the guest.
    #[error("the device could not run the job: {reason}")]
    Host {
        /// What failed.
        reason: String,
    },
}

impl Failure {
    /// A stable word for the kind of failure.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotWasm { .. } => "not_wasm",
            Self::Compile { .. } => "compile",
            Self::MissingExport { .. } => "missing_export",
            Self::Link { .. } => "link",
            Self::Trap { .. } => "trap",
            Self::ExitCode { .. } => "exit_code",
            Self::Timeout { .. } => "timeout",
            Self::OutOfFuel { .. } => "out_of_fuel",
            Self::MemoryLimit { .. } => "memory_limit",
            Self::OutputTooLarge { .. } => "output_too_large",
            Self::UpdateNotAFile => "update_not_a_file",
            Self::StateNotAFile => "state_not_a_file",
            Self::Cancelled => "cancelled",
            Self::Environment { .. } => "environment",
            Self::Inputs { .. } => "inputs",
            Self::DataDir { .. } => "data_dir",
            Self::Host { .. } => "host",
        }
    }

    /// A failure of the host, described by what was tried and what came of it.
    pub(super) fn host(tried: &str, error: impl std::fmt::Display) -> Self {
        Self::Host { reason: format!("{tried}: {error}") }
    }
}

/// What a guest did that the machine forbids.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrapKind {
    /// It gave up: a panic or an abort.
    #[error("it reached `unreachable` (a panic or an abort)")]
    Unreachable,
    /// It read or wrote outside its memory.
    #[error("it went out of the bounds of its memory")]
    OutOfBounds,
    /// It recursed too deeply.
    #[error("its call stack overflowed")]
    StackOverflow,
    /// It divided by zero.
    #[error("it divided an integer by zero")]
    DivideByZero,
    /// An integer did not fit.
    #[error("an integer overflowed")]
    IntegerOverflow,
    /// It called what is not a function, or not that function.
    #[error("it made an indirect call to a wrong or missing function")]
    BadCall,
    /// Something rarer, in the machine's words.
    #[error("{0}")]
    Other(String),
}

/// An output of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputKind {
    /// What it prints.
    #[error("standard output")]
    Stdout,
    /// What it writes to files.
    #[error("file output")]
    Files,
    /// What it leaves for the next of its kind.
    #[error("state")]
    State,
}
