//! What the agent asks its shell to do, and what the shell reports back.

use std::fmt;

use bytes::Bytes;
use protocol::{
    Rejection, RoundId, TaskId,
    message::{FailureCode, TaskStart},
};

use crate::GuestOutput;

/// Something only the shell can do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Run this task to its end, then report [`Report::Finished`], whatever happens.
    Run { start: Box<TaskStart>, model: Option<Bytes> },
    /// End this run; it still reports that it finished.
    Cancel { task: TaskId, attempt: u32 },
    /// Look at this process, then report [`Report::Measured`].
    Measure,
    /// All is said and nothing runs: the shell may go.
    Stopped,
    /// Worth a line in the log.
    Note(Note),
}

/// What the shell reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    Finished(Box<Finished>),
    Measured(Measurement),
    /// The broker is gone. `connection` counts connections from 1, so that a late report is not
    /// taken for news of the next one.
    Lost {
        connection: u64,
    },
    /// The process is to end: interrupt what runs, say goodbye, take nothing more.
    Shutdown,
}

/// The end of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    pub task: TaskId,
    pub attempt: u32,
    pub outcome: Outcome,
    pub metrics: RunMetrics,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Ok(GuestOutput),
    Failed(Failure),
}

/// Why a task made nothing: a stable word, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: FailureCode,
    pub message: String,
}

/// What one run took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunMetrics {
    pub wall_ms: f64,
    pub cpu_ms: f64,
    pub memory_bytes: u64,
    pub fuel: Option<u64>,
    /// Where the compiled module came from.
    pub module: &'static str,
    pub compile_ms: f64,
    pub start_us: f64,
}

/// What this process takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    pub cpu_percent: f64,
    pub memory_bytes: u64,
    pub uptime_s: u64,
}

/// A transition that an operator may want to read of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    Started { task: TaskId, attempt: u32 },
    Completed { task: TaskId, attempt: u32 },
    Failed { task: TaskId, attempt: u32, failure: Failure },
    Superseded { task: TaskId, attempt: u32 },
    Accepted { round: RoundId },
    Rejected { round: RoundId, reason: Rejection },
}

impl Failure {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: FailureCode(code.to_owned()), message: message.into() }
    }

    pub(crate) fn interrupted() -> Self {
        Self::new(FailureCode::INTERRUPTED, "the proplet stopped before the task had ended")
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(FailureCode::CANCELLED, "the task was stopped")
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { task, attempt } => write!(f, "task {task} runs (attempt {attempt})"),
            Self::Completed { task, attempt } => {
                write!(f, "task {task} is complete (attempt {attempt})")
            }
            Self::Failed { task, attempt, failure } => {
                let Failure { code, message } = failure;
                write!(f, "task {task} failed (attempt {attempt}, {}): {message}", code.0)
            }
            Self::Superseded { task, attempt } => {
                write!(f, "task {task} is to run again: attempt {attempt} is given up")
            }
            Self::Accepted { round } => write!(f, "the update to round {round} was accepted"),
            Self::Rejected { round, reason } => {
                write!(f, "the update to round {round} was rejected: {reason}")
            }
        }
    }
}
