//! How the manager is, apart from what it knows: told by the driver, read by health and metrics.

use service::Standing;

/// What can be wrong with a manager that runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub(crate) standing: Standing,
    /// Messages that could not be read.
    pub(crate) unreadable: u64,
}
