//! What is said on the topics, one file a message. Readers ignore unknown fields.

mod forward;
mod model;
mod proplet;
mod round;
mod start;
mod task;
mod update;
mod verdict;

pub use forward::{FORWARD_TAIL_LEN_MAX, Forwarded, Origin, forward};
pub use model::{Model, ModelLatest};
pub use proplet::{
    AliveStatus, HeldTask, PropletAlive, PropletCreate, PropletMetrics, TaskMetrics,
};
pub use round::{RoundAbsent, RoundComplete, RoundFailed, RoundOpened};
pub use start::{Hyperparams, PARTICIPANTS_MAX, RoundStart, TIMEOUT_S_MAX};
pub use task::{FailureCode, TaskResults, TaskStart, TaskState, TaskStop};
pub use update::{METRICS_MAX, Update, UpdateError, read_update};
pub use verdict::{UpdateAck, Verdict};
