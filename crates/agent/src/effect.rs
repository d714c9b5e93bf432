//! What the agent asks its shell to do, and what the shell reports back.

use std::fmt;

use bytes::Bytes;
use protocol::{
    Digest, Manifest, Rejection, RoundId, TaskId,
    message::{FailureCode, TaskStart, Update},
    tensor::safetensors::Metadata,
};
use transfer::Bitmap;

use crate::{Encode, Encoded, GuestOutput, Need};

/// Something only the shell can do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Run this task to its end, then report [`Report::Finished`], whatever happens. A module in
    /// pieces is a blob that is there, and pinned.
    Run { start: Box<TaskStart>, model: Option<BaseModel>, variates: Option<Box<Variates>> },
    /// End this run; it still reports that it finished.
    Cancel { task: TaskId, attempt: u32 },
    /// Look at this process, then report [`Report::Measured`].
    Measure,
    /// Make a blob of an update that is too long for one message: its tensors, in the types of its
    /// base model if it came as text. Pin it and report [`Report::Packed`].
    Pack { task: TaskId, attempt: u32, update: Box<Update>, base: Option<BaseModel> },
    /// Write an update as its round's encoding has it, give its blob back, and report
    /// [`Report::Encoded`]; what comes of it that is a blob is pinned.
    Encode(Box<Encode>),
    /// Make ready for a blob, and report what of it is there: [`Report::Begun`].
    Begin(Manifest),
    /// Write this piece and report [`Report::Stored`].
    Store { blob: Manifest, index: u32, bytes: Bytes },
    /// All pieces are there: check the whole, pin it and report [`Report::Fetched`].
    Finish(Manifest),
    /// Nobody waits for this blob any longer; what is there of it may stay.
    Abandon(Manifest),
    /// Pin each of these, as often as it stands here.
    Hold(Vec<Digest>),
    /// Unpin this blob; it may stay as long as there is room.
    Release(Digest),
    /// Unpin this blob; nobody will ever need it again unless it is pinned still.
    Drop(Digest),
    /// Read a piece of the update to this round and report [`Report::ChunkRead`].
    ReadChunk { round: RoundId, blob: Manifest, index: u32 },
    /// All is said and nothing runs: the shell may go.
    Stopped,
    /// Worth a line in the log.
    Note(Note),
}

/// What a task is given to start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseModel {
    /// As it was published, in one message.
    Here(Bytes),
    /// A blob, which the agent keeps pinned as long as the task runs.
    Stored(Digest),
}

/// What a round with control variates gives its tasks beside the base model; their guests have to
/// leave a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variates {
    /// The server's, as it was said.
    pub control: Bytes,
    /// What a guest left at the last update of this device that counted; it may be the first.
    pub state: Option<Bytes>,
}

/// What the shell reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    Finished(Box<Finished>),
    Measured(Measurement),
    Packed {
        task: TaskId,
        attempt: u32,
        result: Result<Manifest, Failure>,
    },
    Encoded {
        task: TaskId,
        attempt: u32,
        result: Result<Encoded, Failure>,
    },
    /// What is there of a blob; or why it cannot come.
    Begun {
        sha256: Digest,
        have: Result<Bitmap, String>,
    },
    Stored {
        sha256: Digest,
        index: u32,
        result: Result<(), String>,
    },
    Fetched {
        sha256: Digest,
        result: Result<(), String>,
    },
    ChunkRead {
        round: RoundId,
        sha256: Digest,
        index: u32,
        result: Result<Bytes, String>,
    },
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
    /// A federated task has left a file that is too long for one message: its update.
    Packed(PackedUpdate),
    Failed(Failure),
}

/// An update that was made a blob, and pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedUpdate {
    /// What the file said of itself.
    pub metadata: Metadata,
    /// Its tensors, in the order of their names.
    pub blob: Manifest,
    /// The file it wrote as its state, where one was asked for.
    pub state: Option<Bytes>,
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
    Started {
        task: TaskId,
        attempt: u32,
    },
    Completed {
        task: TaskId,
        attempt: u32,
    },
    Failed {
        task: TaskId,
        attempt: u32,
        failure: Failure,
    },
    Superseded {
        task: TaskId,
        attempt: u32,
    },
    Accepted {
        round: RoundId,
    },
    Rejected {
        round: RoundId,
        reason: Rejection,
    },
    /// The pieces of something begin to come.
    Fetching {
        need: Need,
        blob: Manifest,
        have: u32,
    },
    /// It is here as a whole; `refused` counts what came beside its pieces.
    Fetched {
        need: Need,
        blob: Manifest,
        refused: u64,
    },
    /// An update is offered, to be fetched in pieces.
    Offered {
        round: RoundId,
        blob: Manifest,
    },
    /// The pieces of an update begin to be asked for.
    Sending {
        round: RoundId,
    },
    /// A piece of an update cannot be read; said once for each update.
    Unreadable {
        round: RoundId,
        index: u32,
        why: String,
    },
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
            Self::Fetching { need, blob, have } => {
                let (bytes, count) = (blob.bytes(), blob.count());
                write!(f, "{need} comes: {bytes} bytes, {have} of {count} chunks are here")
            }
            Self::Fetched { need, blob, refused } => {
                let (bytes, count) = (blob.bytes(), blob.count());
                write!(f, "{need} is here: {bytes} bytes, {count} chunks, {refused} refused")
            }
            Self::Offered { round, blob } => {
                let (bytes, count) = (blob.bytes(), blob.count());
                write!(f, "the update to round {round} is offered: {bytes} bytes, {count} chunks")
            }
            Self::Sending { round } => write!(f, "the update to round {round} is asked for"),
            Self::Unreadable { round, index, why } => {
                write!(f, "chunk {index} of the update to round {round} cannot be read: {why}")
            }
        }
    }
}
