//! How the coordinator is, apart from what it knows: told by its drivers, read by health and
//! figures.

use service::Standing;
use tokio::sync::watch;

use crate::tally::Tally;

/// What can be wrong with a coordinator that runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub(crate) rounds: Standing,
    pub(crate) sessions: Standing,
    pub(crate) tally: Tally,
    pub(crate) session_rounds_failed: u64,
    pub(crate) evaluations: u64,
}

pub(crate) type Board = watch::Sender<Status>;

impl Status {
    pub(crate) fn failing(&self) -> Option<String> {
        self.rounds.failing().or_else(|| self.sessions.failing())
    }
}
