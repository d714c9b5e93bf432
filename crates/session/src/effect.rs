//! What the sessions' core wants done beside speaking and remembering.

use std::sync::Arc;

use protocol::{
    ModelUri, RoundId, SessionId,
    message::{SessionStart, SessionState, SessionStatus},
};

use crate::{Answer, HistoryRow, Refusal};

/// Something for the shell.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// This is how a session stands now, for those who ask.
    Show(Box<SessionView>),
    /// A session that is no longer remembered.
    Forget(SessionId),
    /// Rows of its history before this one are no longer remembered.
    Trim { session: SessionId, first_row: u64 },
    /// To the caller with this number.
    Answer { ticket: u64, answer: Result<Box<Answer>, Refusal> },
    /// Log this.
    Note(Note),
}

/// A session for the eye.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionView {
    pub status: SessionStatus,
    pub start: Arc<SessionStart>,
    /// The round that is under way.
    pub round: Option<RoundId>,
    /// What the last step added to its history, or changed in it.
    pub rows: Vec<HistoryRow>,
}

/// One thing that an operator may want to see.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    Started {
        session: SessionId,
        rounds: u64,
    },
    /// A start that was not taken up.
    Refused {
        session: SessionId,
        what: String,
    },
    Asked {
        session: SessionId,
        round: RoundId,
        participants: usize,
        k: usize,
    },
    Waits {
        session: SessionId,
        what: String,
    },
    RoundDone {
        session: SessionId,
        round: u64,
        of: u64,
        model: ModelUri,
    },
    /// The model was looked at.
    Evaluated {
        session: SessionId,
        round: RoundId,
        updates: usize,
    },
    RoundFailed {
        session: SessionId,
        what: String,
    },
    Ended {
        session: SessionId,
        state: SessionState,
        detail: String,
    },
    UnknownCommand {
        session: SessionId,
    },
}
