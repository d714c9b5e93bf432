//! How much of everything is held.

use std::time::Duration;

use protocol::Records;

use crate::Delivery;

/// Bounds on what the manager remembers; beyond them it refuses or drops the oldest, and says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Silence after which a proplet counts as offline.
    pub liveness: Duration,
    /// How long after a connection that the broker had nothing kept for a proplet may still be
    /// unheard that is there: participants are not called absent before.
    pub settles_after: Duration,
    pub proplets_max: usize,
    pub tasks_max: usize,
    /// Finished federated tasks that are kept; the oldest go first.
    pub federated_kept_max: usize,
    /// Longest result of a task, as JSON text.
    pub results_len_max: usize,
    /// Bytes of all uploaded modules together.
    pub files_len_max: usize,
    /// Started rounds that are remembered, so that a repeated start is told from a new one.
    pub rounds_max: usize,
    pub records: Records,
    /// Longest payload of a message to a proplet.
    pub message_len_max: usize,
    /// Length of a piece of a module.
    pub chunk_len: u32,
    /// The longest module that goes with the start of its task. A longer one goes in pieces to the
    /// proplets that know what to do with them: once to each, however often it is to run.
    pub inline_len_max: usize,
    pub image_delivery: Delivery,
    /// Whether the shell keeps spans: then participants' tasks have one of their own, also of
    /// rounds whose start names no trace.
    pub keeps_spans: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            liveness: Duration::from_secs(30),
            settles_after: Duration::from_secs(12),
            proplets_max: 100_000,
            tasks_max: 100_000,
            federated_kept_max: 10_000,
            results_len_max: 1 << 20,
            files_len_max: 512 << 20,
            rounds_max: 10_000,
            records: Records::Kept,
            message_len_max: usize::MAX,
            chunk_len: 256 << 10,
            inline_len_max: 16 << 10,
            image_delivery: Delivery::Proplet,
            keeps_spans: false,
        }
    }
}

/// Longest metadata of a proplet, as JSON text.
pub(crate) const METADATA_LEN_MAX: usize = 16 << 10;
/// Longest message of a proplet about itself.
pub(crate) const HELLO_LEN_MAX: usize = 256 << 10;
/// Longest name of a task.
pub(crate) const NAME_LEN_MAX: usize = 512;
/// Arguments, inputs and environment of one task together.
pub(crate) const SPEC_LEN_MAX: usize = 256 << 10;
pub(crate) const RETRIES_MAX: u32 = 100;
/// Longest error text kept of a task.
pub(crate) const ERROR_LEN_MAX: usize = 8 << 10;
/// Reports on one task that are kept, and on all tasks.
pub(crate) const METRICS_PER_TASK_MAX: usize = 100;
pub(crate) const METRICS_MAX: usize = 100_000;
/// Modules are sent to this many bytes in one step; proplets that did not get theirs get it when
/// they next say that they do not have it.
pub(crate) const SEND_LEN_MAX: usize = 64 << 20;
