//! How the manager is, apart from what it knows: told by the driver, read by health and metrics.

/// What can be wrong with a manager that runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    /// Whether the broker is there.
    pub(crate) connected: bool,
    /// Why the state file takes no writes, if it does not.
    pub(crate) storage: Option<String>,
    /// Messages that could not be read.
    pub(crate) unreadable: u64,
}

impl Status {
    /// What is wrong, in words; nothing if all is well.
    pub(crate) fn failing(&self) -> Option<String> {
        match (&self.storage, self.connected) {
            (Some(why), _) => Some(format!("cannot write: {why}")),
            (None, false) => Some("not connected to the broker".to_owned()),
            (None, true) => None,
        }
    }
}
