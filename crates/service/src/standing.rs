//! How one half of a service stands: its connection and its state file. Told by a driver's
//! effects, read by health and figures.

use crate::{Figures, StoreError, run};

/// What a driver needs, and whether it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    connected: bool,
    met: bool,
    storage: Option<String>,
}

impl Standing {
    /// Whether the broker is there.
    pub const fn connection(&mut self, connected: bool) {
        self.connected = connected;
        self.met |= connected;
    }

    /// Why the state file takes no writes, if it does not.
    pub fn storage(&mut self, why: Option<&StoreError>) {
        self.storage = why.map(|why| run::chain(why));
    }

    /// Whether the broker has ever been there, since the start.
    pub const fn has_begun(&self) -> bool {
        self.met
    }

    pub const fn is_connected(&self) -> bool {
        self.connected
    }

    /// Why the state file takes no writes, in words.
    pub fn refused(&self) -> Option<&str> {
        self.storage.as_deref()
    }

    /// What is wrong, in words; nothing if all is well.
    pub fn failing(&self) -> Option<String> {
        match (&self.storage, self.connected) {
            (Some(why), _) => Some(format!("cannot write: {why}")),
            (None, false) => Some("not connected to the broker".to_owned()),
            (None, true) => None,
        }
    }

    /// The figures of a service that consists of `parts`.
    pub fn show<'a>(parts: impl IntoIterator<Item = &'a Self> + Clone, figures: &mut Figures) {
        let connected = parts.clone().into_iter().all(Self::is_connected);
        let writes = parts.into_iter().all(|part| part.storage.is_none());
        figures.gauge("aileron_broker_connected", "Whether the broker is there", connected.into());
        figures.gauge("aileron_storage_ok", "Whether the state file takes writes", writes.into());
    }
}
