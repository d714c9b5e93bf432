//! A training session: many rounds without a human between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::{
    Digest, Letter, ModelLine, ModelUri, ModelVersion, PropletId, SessionId, Timestamp, Topic,
    TraceField,
    message::{ClipSpec, EvaluateSpec, Hyperparams, StrategySpec, TIMEOUT_S_MAX, bounds},
};

/// Most rounds of one session.
pub const SESSION_ROUNDS_MAX: u64 = 1_000_000;
/// Longest start of a session, in bytes; it may carry a workload.
pub const SESSION_START_LEN_MAX: usize = 64 << 20;

const ROUND_TIMEOUT_S_DEFAULT: u64 = 60;
const RETRIES_DEFAULT: u32 = 3;
const STALENESS_MAX_DEFAULT: u64 = 20;

/// Asks for a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionStart {
    pub session_id: SessionId,
    /// Where it begins; the newest model by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_uri: Option<ModelUri>,
    /// Of which line the newest model is meant; the default line's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_line: Option<ModelLine>,
    /// As in a round's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_wasm_image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(default)]
    pub hyperparams: Hyperparams,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<StrategySpec>,
    /// As in a round's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<ClipSpec>,
    /// As in a round's start.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounds::share_max"
    )]
    pub share_max: Option<f64>,
    /// As in a round's start.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "bounds::env")]
    pub env: BTreeMap<String, String>,
    /// As in a round's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    #[serde(default)]
    pub selection: SelectionSpec,
    /// Rounds that make a model, 1 to a million.
    #[serde(deserialize_with = "rounds")]
    pub rounds: u64,
    /// Ends the session once a metric of a round has reached a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Ends the session once a metric has not become better for some rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<Patience>,
    /// Seconds from the start of the session to its end at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
    /// Seconds after which a round closes with what it has.
    #[serde(default = "timeout_s_default", deserialize_with = "timeout_s")]
    pub timeout_s: u64,
    /// Updates that close a round; by default as many as were wanted before over-selection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k_of_n: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_updates: Option<usize>,
    /// How often a round that failed is tried again before the session fails.
    #[serde(default = "retries_default")]
    pub retries: u32,
    /// Evaluates the model every so often; not at all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluate: Option<EvaluateSpec>,
    /// Makes models of whatever updates come first, and lets the slow go on; one round is waited
    /// for after the other by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asynchronous: Option<AsynchronousSpec>,
    /// What every choice of the session follows from.
    #[serde(default)]
    pub seed: u64,
    /// As in a round's start; all rounds of the session hang below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<TraceField>,
}

/// Rounds that do not wait for the slow: their updates count in a later one, for less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AsynchronousSpec {
    /// Updates that make a model, from whichever round they come.
    pub buffer: usize,
    /// How many proplets are kept at work, at least as many as the buffer takes.
    pub concurrency: usize,
    /// Versions that an update may be behind; above it, it is turned away. 20 by default.
    #[serde(default = "staleness_max_default")]
    pub staleness_max: u64,
}

/// Who is asked in a round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectionSpec {
    /// `all` by default; the coordinator lists what it knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Exactly these, known and alive or not.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub participants: BTreeSet<PropletId>,
    /// How many, before over-selection...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// ...or which share of those that could be asked, above 0, up to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// How many times as many are asked as are needed, 1 to 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over: Option<f64>,
    /// A round waits for so many that could be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_min: Option<usize>,
    /// What a proplet has to say of itself to be asked: metadata that is equal...
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub require: BTreeMap<String, serde_json::Value>,
    /// ...or a number at least this large.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub at_least: BTreeMap<String, f64>,
    /// All of these stand in the list `tags` of its metadata.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
}

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Better {
    #[serde(rename = ">=")]
    Higher,
    #[serde(rename = "<=")]
    Lower,
}

/// A metric that is to be reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    pub metric: String,
    pub op: Better,
    pub value: f64,
}

/// A metric that has to go on becoming better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patience {
    pub metric: String,
    pub op: Better,
    /// Rounds without a better value that are waited for, at least 1.
    pub rounds: u64,
    /// By how much it has to be better to count.
    #[serde(default)]
    pub min_delta: f64,
}

/// Asks something of a session that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCommand {
    pub command: Command,
}

/// What can be asked of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Begin no further round; one that is under way still ends.
    Stop,
    /// Go on after a stop or a failure, with the retries anew.
    Resume,
}

/// How a session stands; retained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionStatus {
    pub session_id: SessionId,
    pub state: SessionState,
    /// Rounds that have made a model.
    pub rounds_done: u64,
    pub rounds: u64,
    /// The model that it has come to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_uri: Option<ModelUri>,
    /// Metrics of the last round.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<Best>,
    pub started_at: Timestamp,
    pub updated_at: Timestamp,
    /// Why it ended, or what it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Why another start with its id, the latest one, was not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// The best model of a session, by its target's or patience's metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub metric: String,
    pub value: f64,
    pub model_version: ModelVersion,
    pub round: u64,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SessionState {
    Running,
    /// An operator stopped it; it can go on.
    Stopped,
    Complete,
    /// A round failed too often; it can go on.
    Failed,
    /// The start was not one that can be taken.
    Refused,
}

impl SessionStart {
    /// The digest of what is asked: equal for a repeated start, different for a changed one.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.seal().payload)
    }
}

impl Better {
    /// Whether `value` is at least as good as `bound`.
    pub fn reaches(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Higher => value >= bound,
            Self::Lower => value <= bound,
        }
    }

    /// Whether `value` is better than `best` by more than `delta`.
    pub fn improves(self, value: f64, best: f64, delta: f64) -> bool {
        match self {
            Self::Higher => value > best + delta,
            Self::Lower => value < best - delta,
        }
    }
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "Running",
            Self::Stopped => "Stopped",
            Self::Complete => "Complete",
            Self::Failed => "Failed",
            Self::Refused => "Refused",
        })
    }
}

impl Letter for SessionStart {
    fn topic(&self) -> Topic {
        Topic::SessionStart
    }
}

impl Letter for SessionStatus {
    fn topic(&self) -> Topic {
        Topic::SessionStatus { session: self.session_id.clone() }
    }
}

fn rounds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        rounds @ 1..=SESSION_ROUNDS_MAX => Ok(rounds),
        other => {
            Err(D::Error::custom(format!("rounds takes 1 to {SESSION_ROUNDS_MAX}, not {other}")))
        }
    }
}

fn timeout_s<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        seconds @ 1..=TIMEOUT_S_MAX => Ok(seconds),
        other => {
            Err(D::Error::custom(format!("timeout_s takes 1 to {TIMEOUT_S_MAX}, not {other}")))
        }
    }
}

const fn timeout_s_default() -> u64 {
    ROUND_TIMEOUT_S_DEFAULT
}

const fn retries_default() -> u32 {
    RETRIES_DEFAULT
}

const fn staleness_max_default() -> u64 {
    STALENESS_MAX_DEFAULT
}
