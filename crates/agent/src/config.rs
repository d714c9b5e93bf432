//! What the owner of the device decides about its agent.

use std::{collections::BTreeMap, time::Duration};

use protocol::{PropletId, Records};
use serde_json::Value;

/// Who the agent is, how often it speaks, and how much it holds at once.
#[derive(Clone, Debug)]
pub struct Config {
    pub proplet: PropletId,
    /// Handed on to the manager as it stands.
    pub namespace: String,
    /// Handed on to the manager as it stands; `"directed":true` is added.
    pub metadata: BTreeMap<String, Value>,
    pub alive_every: Duration,
    /// How often the proplet's own metrics are published while something runs, and how soon after
    /// it was connected; without it, never.
    pub metrics_every: Option<Duration>,
    /// How long a task waits for its base model or its module, or for the next piece of it.
    pub model_wait: Duration,
    /// Tasks that run, or wait for their model, at once.
    pub concurrency: usize,
    /// Tasks that wait for their turn, and how many bytes their starts may have together.
    pub tasks_queued_max: usize,
    pub queued_bytes_max: usize,
    /// The longest output that is sent as a task's result.
    pub result_bytes_max: usize,
    /// How many results of ended tasks are kept, and how many bytes they may have together.
    pub results_kept_max: usize,
    pub results_bytes_max: usize,
    /// The longest message; a longer update goes in pieces.
    pub message_bytes_max: usize,
    /// Bytes of updates that wait for a verdict; one update is always taken.
    pub updates_bytes_max: usize,
    /// The longest state that a guest may leave for the next of its kind; 0 for none.
    pub state_bytes_max: usize,
    /// The longest module that is fetched.
    pub module_bytes_max: u64,
    /// Bytes of base models kept for the next task.
    pub models_bytes_max: usize,
    /// Spreads the repetitions of many proplets.
    pub seed: u64,
    pub records: Records,
}

impl Config {
    /// What suits a small device.
    pub fn new(proplet: PropletId) -> Self {
        Self {
            proplet,
            namespace: String::new(),
            metadata: BTreeMap::new(),
            alive_every: Duration::from_secs(10),
            metrics_every: Some(Duration::from_secs(30)),
            model_wait: Duration::from_secs(30),
            concurrency: 1,
            tasks_queued_max: 64,
            queued_bytes_max: 256 << 20,
            result_bytes_max: 1 << 20,
            results_kept_max: 256,
            results_bytes_max: 16 << 20,
            message_bytes_max: usize::MAX,
            updates_bytes_max: 64 << 20,
            state_bytes_max: 16 << 20,
            module_bytes_max: 64 << 20,
            models_bytes_max: 64 << 20,
            seed: 0,
            records: Records::Kept,
        }
    }
}
