//! Tasks between manager and proplet.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_json::{Value, value::RawValue};

use crate::{Letter, Manifest, PropletId, TaskId, Topic, TraceField, Traceparent};

/// Asks a proplet to run a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskStart {
    pub id: TaskId,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub image_url: Option<String>,
    /// The module itself, base64.
    #[serde(default)]
    pub file: Option<String>,
    /// The module in pieces, in place of `file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_blob: Option<Manifest>,
    /// Says who vouches for the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module_signature: Option<String>,
    #[serde(default, deserialize_with = "inputs")]
    pub inputs: Vec<Value>,
    #[serde(default)]
    pub cli_args: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Runs until it is stopped, without a wall-time limit.
    #[serde(default)]
    pub daemon: bool,
    /// Who is meant; nobody named means everybody.
    #[serde(default)]
    pub proplet_id: Option<PropletId>,
    #[serde(default)]
    pub state: TaskState,
    /// Counts the runs of one task, so that a repeated message is told from a repeated run.
    #[serde(default)]
    pub attempt: u32,
    /// The span that the run is to hang below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<TraceField>,
    /// Sent on the named proplet's own topic rather than to everybody.
    #[serde(skip)]
    pub directed: bool,
}

impl TaskStart {
    /// The span that the run hangs below, if it says so, and one can read it.
    pub fn parent(&self) -> Option<Traceparent> {
        self.traceparent.as_ref().and_then(TraceField::parent)
    }
}

/// Longest `inputs` of a start, as JSON text: opened, they take many times that.
const INPUTS_LEN_MAX: usize = 1 << 20;

fn inputs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Value>, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    let len = raw.get().len();
    if len > INPUTS_LEN_MAX {
        let what = format!("inputs has {len} bytes, at most {INPUTS_LEN_MAX} are taken");
        return Err(D::Error::custom(what));
    }
    serde_json::from_str(raw.get()).map_err(D::Error::custom)
}

/// Asks a proplet to stop a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStop {
    pub id: TaskId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proplet_id: Option<PropletId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<bool>,
    /// Sent on the named proplet's own topic rather than to everybody.
    #[serde(skip)]
    pub directed: bool,
}

/// What came of a task on one proplet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskResults {
    pub task_id: TaskId,
    pub proplet_id: PropletId,
    #[serde(default)]
    pub results: Value,
    #[serde(default)]
    pub error: Option<String>,
    /// Which run this is about; absent from proplets that do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// What kind of end an error is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<FailureCode>,
}

/// The kind of a failed task's end, a stable word.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FailureCode(pub String);

impl FailureCode {
    /// The proplet stopped before the task had ended: it is to run again if its policy says so.
    pub const INTERRUPTED: &str = "interrupted";
    /// Somebody asked for the task to stop.
    pub const CANCELLED: &str = "cancelled";
}

/// Where a task stands. A word on the wire; its number is accepted, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum TaskState {
    #[default]
    Pending,
    Scheduled,
    Running,
    Completed,
    Failed,
    Skipped,
    Interrupted,
}

impl TaskState {
    /// Every state; the index is the state's number.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Scheduled,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Skipped,
        Self::Interrupted,
    ];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Scheduled => "Scheduled",
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Skipped => "Skipped",
            Self::Interrupted => "Interrupted",
        }
    }

    /// Reads the word, in any case, or the number.
    pub fn parse(text: &str) -> Option<Self> {
        let by_number = text.parse::<usize>().ok().and_then(|n| Self::ALL.get(n));
        by_number
            .or_else(|| Self::ALL.iter().find(|s| s.as_str().eq_ignore_ascii_case(text)))
            .copied()
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for TaskState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Value::deserialize(deserializer)?;
        let text = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
        Self::parse(&text).ok_or_else(|| {
            let words: Vec<_> = Self::ALL.iter().map(|state| state.as_str()).collect();
            D::Error::custom(format!("state takes {} or 0..6, not {text}", words.join(", ")))
        })
    }
}

impl Letter for TaskStart {
    fn topic(&self) -> Topic {
        match (&self.proplet_id, self.directed) {
            (Some(proplet), true) => Topic::DirectStart { proplet: proplet.clone() },
            (Some(_) | None, _) => Topic::TaskStart,
        }
    }
}

impl Letter for TaskStop {
    fn topic(&self) -> Topic {
        match (&self.proplet_id, self.directed) {
            (Some(proplet), true) => Topic::DirectStop { proplet: proplet.clone() },
            (Some(_) | None, _) => Topic::TaskStop,
        }
    }
}

impl Letter for TaskResults {
    fn topic(&self) -> Topic {
        Topic::TaskResults
    }
}
