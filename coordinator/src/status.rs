//! How the coordinator is, apart from what it knows: told by its drivers, read by health and
//! figures.

use service::StoreError;
use tokio::sync::watch;

use crate::tally::Tally;

/// What can be wrong with a coordinator that runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub(crate) rounds: Part,
    pub(crate) sessions: Part,
    pub(crate) tally: Tally,
    pub(crate) session_rounds_failed: u64,
    pub(crate) evaluations: u64,
}

/// One of its two halves, each with a connection and a file of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Whether the broker is there.
    connected: bool,
    /// Whether it has ever been, since the start.
    met: bool,
    /// Why the state file takes no writes, if it does not.
    storage: Option<String>,
}

pub(crate) type Board = watch::Sender<Status>;

impl Part {
    pub(crate) const fn connection(&mut self, connected: bool) {
        self.connected = connected;
        self.met |= connected;
    }

    pub(crate) fn storage(&mut self, why: Option<&StoreError>) {
        self.storage = why.map(|why| service::run::chain(why));
    }

    /// Whether what it remembers has been looked at.
    pub(crate) const fn has_begun(&self) -> bool {
        self.met
    }

    pub(crate) const fn is_connected(&self) -> bool {
        self.connected
    }

    /// What is wrong, in words; nothing if all is well.
    pub(crate) fn failing(&self) -> Option<String> {
        match (&self.storage, self.connected) {
            (Some(why), _) => Some(format!("cannot write: {why}")),
            (None, false) => Some("not connected to the broker".to_owned()),
            (None, true) => None,
        }
    }
}

impl Status {
    pub(crate) fn failing(&self) -> Option<String> {
        self.rounds.failing().or_else(|| self.sessions.failing())
    }
}
