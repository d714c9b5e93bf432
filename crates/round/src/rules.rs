//! What the coordinator takes, as its operator sets it.

use std::time::Duration;

use protocol::{Records, message::ClipSpec};

/// Longest payload that is looked at whatever the settings say, in bytes.
pub const PAYLOAD_LEN_MAX: usize = 256 << 20;

/// Longest start of a round that is read further than its name.
pub(crate) const START_LEN_MAX: usize = 64 << 20;
/// Longest announcement of a model, or of an absence.
pub(crate) const NOTICE_LEN_MAX: usize = 64 << 10;

/// Limits and habits of one coordinator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Longest update, in bytes.
    pub update_len_max: usize,
    /// Longest update that comes in pieces, in bytes.
    pub blob_len_max: u64,
    /// Longest model that is made, in bytes: as long as the model server takes.
    pub model_len_max: usize,
    /// Longest control variate that is said to participants: one message, in bytes.
    pub variate_len_max: usize,
    /// Most samples that one update may claim.
    pub samples_max: u64,
    /// Updates without which a closing round fails, where its start does not say.
    pub updates_min: usize,
    /// Bytes of counted updates over all open rounds; above it, updates wait for a verdict.
    pub kept_len_max: u64,
    /// Rounds open at once; a start above it is refused.
    pub rounds_open_max: usize,
    /// How long an update of a round that nobody has started waits for that start.
    pub unknown_grace: Duration,
    pub lazy: LazyRounds,
    pub records: Records,
    /// How updates become a model, where a start does not say.
    pub strategy: &'static str,
    /// How far one update may pull, and how much it may count for, where a start does not say.
    pub clip: Option<ClipSpec>,
    pub share_max: Option<f64>,
}

/// Whether an update may open the round that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LazyRounds {
    Off,
    /// With three updates or sixty seconds, members as they come.
    On,
}

/// Updates that close a round which its first update opened.
pub(crate) const LAZY_K: usize = 3;
/// When such a round closes at the latest.
pub(crate) const LAZY_TIMEOUT: Duration = Duration::from_secs(60);
/// After a restart no round closes for lack of time before the updates that queued up at the
/// broker could come in.
pub(crate) const RESTART_GRACE: Duration = Duration::from_secs(2);
/// Ended rounds that are remembered.
pub(crate) const OUTCOMES_MAX: usize = 10_000;
/// Counted updates of ended rounds that are remembered, over all of them.
pub(crate) const OUTCOME_MEMBERS_MAX: usize = 200_000;

impl Default for Rules {
    fn default() -> Self {
        Self {
            update_len_max: 16 << 20,
            blob_len_max: 4 << 30,
            model_len_max: 64 << 20,
            variate_len_max: 1 << 20,
            samples_max: 1_000_000_000,
            updates_min: 1,
            kept_len_max: 1 << 30,
            rounds_open_max: 1000,
            unknown_grace: Duration::from_secs(10),
            lazy: LazyRounds::Off,
            records: Records::Kept,
            strategy: "fedavg",
            clip: None,
            share_max: None,
        }
    }
}
