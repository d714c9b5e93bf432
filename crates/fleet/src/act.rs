//! What follows from a step beside messages and records: answers, notices, counts.

use std::fmt;

use protocol::{Output, PropletId, RoundId, TaskId, message::TaskState};

use crate::{Answer, Piece, Refusal, Seeker, TracedTask, Wanted};

/// What only the shell can do.
#[derive(Debug)]
pub enum Effect<R> {
    /// Answers whoever asked; everything that the answer rests on is durable by then.
    Reply { to: R, answer: Box<Result<Answer, Refusal>> },
    /// Is for the log.
    Tell(Notice),
    /// A piece is to go out: report [`crate::Report::Passed`] once there is room for it.
    Pass(Piece),
    /// A registry is to be asked: report [`crate::Report::Found`], whatever comes of it.
    Find { wanted: Wanted, seeker: Seeker<R> },
}

/// What a step does, before anybody in particular is answered.
pub(crate) type Acts = Vec<Output<Notice>>;

/// Something that an operator may want to read later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A task went from one state to another.
    Task {
        id: TaskId,
        name: String,
        from: TaskState,
        to: TaskState,
        attempt: u32,
        why: String,
        /// Where it has a span.
        traced: Option<Box<TracedTask>>,
    },
    /// A task was dropped to make room.
    Dropped { id: TaskId, name: String },
    /// A task's start was sent again.
    Resent { id: TaskId, proplet: PropletId, attempt: u32 },
    /// A proplet was told to stop what should not run there.
    Stray { id: TaskId, proplet: PropletId },
    /// A proplet is there (again).
    Alive { proplet: PropletId },
    /// A proplet is gone.
    Offline { proplet: PropletId, why: &'static str },
    /// A round's tasks are under way.
    Round { round: RoundId, dispatched: usize, absent: usize },
    /// Some of a round's participants have not been heard since the connection.
    Unheard { round: RoundId, unheard: usize },
    /// A known round was asked for with another content.
    RoundConflict { round: RoundId },
    /// A message changes nothing, for this reason.
    Ignored { what: &'static str, why: String },
}

impl Notice {
    /// Whether somebody should look into it.
    pub const fn is_warning(&self) -> bool {
        match self {
            Self::Task { to, .. } => matches!(to, TaskState::Failed | TaskState::Interrupted),
            Self::Offline { .. } | Self::RoundConflict { .. } | Self::Ignored { .. } => true,
            Self::Dropped { .. }
            | Self::Resent { .. }
            | Self::Stray { .. }
            | Self::Alive { .. }
            | Self::Round { .. }
            | Self::Unheard { .. } => false,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task { id, name, from, to, attempt, why, traced: _ } => {
                write!(f, "task {id} ({name}) attempt {attempt}: {from} -> {to}")?;
                if why.is_empty() { Ok(()) } else { write!(f, ": {why}") }
            }
            Self::Dropped { id, name } => {
                write!(f, "task {id} ({name}) dropped: finished long ago")
            }
            Self::Resent { id, proplet, attempt } => {
                write!(
                    f,
                    "task {id} attempt {attempt} sent again to {proplet}, which has not got it"
                )
            }
            Self::Stray { id, proplet } => {
                write!(f, "task {id} should not run on {proplet}: told to stop")
            }
            Self::Alive { proplet } => write!(f, "proplet {proplet} is alive"),
            Self::Offline { proplet, why } => write!(f, "proplet {proplet} is offline: {why}"),
            Self::Round { round, dispatched, absent } => {
                write!(
                    f,
                    "round {round}: {dispatched} tasks dispatched, {absent} participants absent"
                )
            }
            Self::Unheard { round, unheard } => {
                write!(f, "round {round}: {unheard} participants have not been heard yet")
            }
            Self::RoundConflict { round } => {
                write!(f, "round {round} was started before with another content: ignored")
            }
            Self::Ignored { what, why } => write!(f, "ignored {what}: {why}"),
        }
    }
}

/// What was heard and done since this process began; not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub round_starts: u64,
    pub round_repeats: u64,
    pub round_conflicts: u64,
    pub updates_forwarded: u64,
    pub proplet_creates: u64,
    pub proplet_alives: u64,
    pub proplet_metrics: u64,
    pub task_metrics: u64,
    pub task_results: u64,
    /// Messages that changed nothing because their sender had no say in the matter.
    pub ignored: u64,
    pub starts_sent: u64,
    pub starts_resent: u64,
    pub module_pieces_sent: u64,
    pub stops_sent: u64,
    pub absents_sent: u64,
}
