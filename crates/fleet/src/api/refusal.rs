//! Why a caller does not get what was asked for.

use protocol::{PropletId, TaskId, message::TaskState};

use crate::{Illegal, SpecError};

/// A refusal, with the value that it is about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no task {0}")]
    NoTask(TaskId),
    #[error("no proplet {0}")]
    NoProplet(PropletId),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Illegal(#[from] Illegal),
    #[error("task {0} exists already")]
    TaskExists(TaskId),
    #[error("proplet {0}, to which the task is pinned, is unknown")]
    PropletUnknown(PropletId),
    #[error("proplet {0}, to which the task is pinned, is not alive")]
    PropletOffline(PropletId),
    #[error("no proplet is alive")]
    NoneAlive,
    #[error("proplet {0} is alive")]
    PropletAlive(PropletId),
    #[error("state is {is} and changes by start and stop, not to {asked}")]
    State { is: TaskState, asked: TaskState },
    #[error("{max} tasks are held, no more: delete some")]
    TasksFull { max: usize },
    #[error("file has {len} bytes; {held} of at most {max} for all files are taken")]
    FilesFull { len: usize, held: usize, max: usize },
    #[error("the start of task {id} has {len} bytes, the broker takes {max}")]
    StartTooLong { id: TaskId, len: usize, max: usize },
    #[error("task {id} cannot start: {why}")]
    Image { id: TaskId, why: String },
}

/// What kind of refusal, for those who answer in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    BadInput,
    NotFound,
    Conflict,
    TooLarge,
    /// Another server did not do its part.
    Upstream,
}

impl Refusal {
    pub const fn kind(&self) -> RefusalKind {
        match self {
            Self::NoTask(_) | Self::NoProplet(_) => RefusalKind::NotFound,
            Self::Spec(_) => RefusalKind::BadInput,
            Self::Illegal(_)
            | Self::TaskExists(_)
            | Self::PropletUnknown(_)
            | Self::PropletOffline(_)
            | Self::NoneAlive
            | Self::PropletAlive(_)
            | Self::State { .. }
            | Self::TasksFull { .. } => RefusalKind::Conflict,
            Self::FilesFull { .. } | Self::StartTooLong { .. } => RefusalKind::TooLarge,
            Self::Image { .. } => RefusalKind::Upstream,
        }
    }
}
