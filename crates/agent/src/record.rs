//! The agent's memory as it lies on disk.

use protocol::{Entry, EntryError, RoundId, TaskId, message::TaskResults};
use serde::{Deserialize, Serialize};

/// Every table there is.
pub const TABLES: &[&str] =
    &[RESULTS, RUNNING, UPDATES, RESIDUALS, RESIDUAL_VALUES, STATES, STATE_VALUES];

/// Task id -> how it ended.
pub(crate) const RESULTS: &str = "results";
/// Task id -> the attempt that runs. What is still here at a restart was interrupted.
pub(crate) const RUNNING: &str = "running";
/// Round id -> the update, or its offer, as it travels, until its verdict is heard.
pub(crate) const UPDATES: &str = "updates";
/// What encoded updates left out; and the numbers of it that are not in a blob.
pub(crate) const RESIDUALS: &str = "residuals";
pub(crate) const RESIDUAL_VALUES: &str = "residual_values";
/// What guests have left for the next of their kind; and the bytes of it.
pub(crate) const STATES: &str = "states";
pub(crate) const STATE_VALUES: &str = "state_values";

/// A row of [`RESULTS`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ResultRecord {
    /// Counts results, so that the oldest can go first.
    pub(crate) sequence: u64,
    /// Where the update went, if the task made one.
    pub(crate) round: Option<RoundId>,
    pub(crate) results: TaskResults,
}

#[derive(Serialize, Deserialize)]
struct RunningRecord {
    task: TaskId,
    attempt: u32,
}

/// What is read of a row of [`UPDATES`] whose key does not say its round.
#[derive(Deserialize)]
struct UpdateRecord {
    round_id: RoundId,
}

pub(crate) fn running(task: &TaskId, attempt: u32) -> Entry {
    Entry::put(RUNNING, task, &RunningRecord { task: task.clone(), attempt })
}

pub(crate) fn read_running(entry: &Entry) -> Result<Option<(TaskId, u32)>, EntryError> {
    Ok(entry.read::<RunningRecord>()?.map(|record| (record.task, record.attempt)))
}

pub(crate) fn read_update_round(entry: &Entry) -> Result<Option<RoundId>, EntryError> {
    match entry.key.parse() {
        Ok(round) => Ok(Some(round)),
        Err(_) => Ok(entry.read::<UpdateRecord>()?.map(|record| record.round_id)),
    }
}
