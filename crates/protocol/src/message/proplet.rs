//! What a proplet says of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Letter, PropletId, TaskId, Topic};

/// A proplet introduces itself, at every connect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PropletCreate {
    pub proplet_id: PropletId,
    #[serde(default)]
    pub namespace: String,
    /// Anything worth knowing; `"directed":true` asks for start and stop on a topic of its own.
    #[serde(default)]
    pub metadata: BTreeMap<String, Value>,
    /// The tasks it holds, running or ended without a word heard back; absent if it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<HeldTask>>,
}

/// A sign of life, and the last will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PropletAlive {
    pub proplet_id: PropletId,
    pub status: AliveStatus,
    #[serde(default)]
    pub namespace: String,
    /// As in [`PropletCreate`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<HeldTask>>,
}

/// Whether the proplet is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AliveStatus {
    Alive,
    Offline,
}

/// A task that a proplet has received and not yet lost.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeldTask {
    pub id: TaskId,
    #[serde(default)]
    pub attempt: u32,
}

/// CPU and memory of a proplet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PropletMetrics {
    pub proplet_id: PropletId,
    #[serde(default)]
    pub namespace: String,
    /// Share of one CPU since the last report, in percent.
    #[serde(default)]
    pub cpu_percent: f64,
    /// Resident set.
    #[serde(default)]
    pub memory_bytes: u64,
    #[serde(default)]
    pub uptime_s: u64,
}

/// CPU, memory, fuel and wall time of one run of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskMetrics {
    pub task_id: TaskId,
    pub proplet_id: PropletId,
    #[serde(default)]
    pub attempt: u32,
    #[serde(default)]
    pub wall_ms: f64,
    /// CPU time of the guest.
    #[serde(default)]
    pub cpu_ms: f64,
    /// Largest linear memory of the guest.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Absent where fuel is not metered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// Where the compiled module came from: `compiled`, `disk` or `memory`.
    #[serde(default)]
    pub module: String,
    /// Time to make the module ready, and from there to the guest's first instruction.
    #[serde(default)]
    pub compile_ms: f64,
    #[serde(default)]
    pub start_us: f64,
}

impl Letter for PropletCreate {
    fn topic(&self) -> Topic {
        Topic::PropletCreate
    }
}

impl Letter for PropletAlive {
    fn topic(&self) -> Topic {
        Topic::PropletAlive
    }
}

impl Letter for PropletMetrics {
    fn topic(&self) -> Topic {
        Topic::PropletMetrics
    }
}

impl Letter for TaskMetrics {
    fn topic(&self) -> Topic {
        Topic::TaskMetrics
    }
}
