//! Every MQTT topic there is. No other file in the workspace spells one.
//!
//! `{B}` is `m/{domain}/c/{channel}`. A [`Namespace`] renders and parses topics for one platform;
//! [`TOPICS`] is the table that `docs/topics.md` is made from.

mod filter;
mod namespace;

use std::{borrow::Cow, fmt, str::FromStr};

pub use filter::Filter;
pub use namespace::Namespace;

use crate::{IdError, ModelVersion, PropletId, RoundId};

/// The address of a message, without prefix, domain and channel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    RoundStart,
    RoundOpened { round: RoundId },
    RoundUpdate { round: RoundId, proplet: PropletId },
    RoundAck { round: RoundId, proplet: PropletId },
    RoundAbsent { round: RoundId },
    RoundComplete { round: RoundId },
    RoundFailed { round: RoundId },
    ForwardedUpdate,
    ModelPublish,
    Model { version: ModelVersion },
    ModelLatest,
    PropletCreate,
    PropletAlive,
    PropletMetrics,
    TaskMetrics,
    TaskResults,
    TaskStart,
    TaskStop,
    DirectStart { proplet: PropletId },
    DirectStop { proplet: PropletId },
}

/// A text that is not one of the platform's topics.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("{0:?} is not a topic of this platform")]
    Unknown(String),
    #[error("bad id in topic: {0}")]
    Id(#[from] IdError),
    #[error("{0:?} is not a model version")]
    Version(String),
}

/// One line of the topic table.
#[derive(Clone, Copy, Debug)]
pub struct TopicRow {
    /// `{B}` and `{...}` stand for what varies.
    pub pattern: &'static str,
    pub writer: &'static str,
    pub readers: &'static str,
    pub retained: bool,
    pub payload: &'static str,
}

macro_rules! table {
    ($($pattern:literal $writer:literal $readers:literal $retained:literal $payload:literal;)*) => {
        &[$(TopicRow {
            pattern: $pattern, writer: $writer, readers: $readers, retained: $retained,
            payload: $payload,
        },)*]
    };
}

/// The topic table: pattern, writer, readers, retained, payload. Everything is QoS 1.
pub const TOPICS: &[TopicRow] = table! {
    "fl/rounds/start" "operator or coordinator" "manager, coordinator" false "RoundStart";
    "fl/rounds/{round_id}/opened" "coordinator" "anyone" false "RoundOpened";
    "fl/rounds/{round_id}/updates/{proplet_id}" "that proplet" "manager" false "Update";
    "fl/rounds/{round_id}/acks/{proplet_id}" "coordinator" "that proplet" false "UpdateAck";
    "fl/rounds/{round_id}/absent" "manager" "coordinator, anyone" false "RoundAbsent";
    "fl/rounds/{round_id}/complete" "coordinator" "anyone" false "RoundComplete";
    "fl/rounds/{round_id}/failed" "coordinator" "anyone" false "RoundFailed";
    "fml/updates" "manager" "coordinator" false "Update, with `forwarded_at`";
    "fl/models/publish" "coordinator" "model server" false "Model";
    "fl/models/global_model_v{N}" "model server" "anyone" true "Model";
    "fl/models/latest" "model server" "anyone" true "ModelLatest";
    "{B}/control/proplet/create" "proplet" "manager" false "PropletCreate";
    "{B}/control/proplet/alive" "proplet (also its last will)" "manager" false "PropletAlive";
    "{B}/control/proplet/metrics" "proplet" "manager" false "PropletMetrics";
    "{B}/control/proplet/task_metrics" "proplet" "manager" false "TaskMetrics";
    "{B}/control/proplet/results" "proplet" "manager" false "TaskResults";
    "{B}/control/manager/start" "manager" "every proplet of the channel" false "TaskStart";
    "{B}/control/manager/stop" "manager" "every proplet of the channel" false "TaskStop";
    "{B}/control/manager/{proplet_id}/start" "manager" "that proplet" false "TaskStart";
    "{B}/control/manager/{proplet_id}/stop" "manager" "that proplet" false "TaskStop";
};

/// The address of a model whose version is written as `version`.
pub(crate) fn model_topic(version: &str) -> String {
    format!("fl/models/global_model_v{version}")
}

impl Topic {
    /// Whether the broker keeps the last message for late subscribers.
    pub const fn is_retained(&self) -> bool {
        matches!(self, Self::Model { .. } | Self::ModelLatest)
    }

    /// The part below `{B}/control`, for topics that live there.
    fn control(&self) -> Option<Cow<'static, str>> {
        let text = match self {
            Self::PropletCreate => Cow::Borrowed("proplet/create"),
            Self::PropletAlive => Cow::Borrowed("proplet/alive"),
            Self::PropletMetrics => Cow::Borrowed("proplet/metrics"),
            Self::TaskMetrics => Cow::Borrowed("proplet/task_metrics"),
            Self::TaskResults => Cow::Borrowed("proplet/results"),
            Self::TaskStart => Cow::Borrowed("manager/start"),
            Self::TaskStop => Cow::Borrowed("manager/stop"),
            Self::DirectStart { proplet } => Cow::Owned(format!("manager/{proplet}/start")),
            Self::DirectStop { proplet } => Cow::Owned(format!("manager/{proplet}/stop")),
            Self::RoundStart
            | Self::RoundOpened { .. }
            | Self::RoundUpdate { .. }
            | Self::RoundAck { .. }
            | Self::RoundAbsent { .. }
            | Self::RoundComplete { .. }
            | Self::RoundFailed { .. }
            | Self::ForwardedUpdate
            | Self::ModelPublish
            | Self::Model { .. }
            | Self::ModelLatest => return None,
        };
        Some(text)
    }

    fn from_control(levels: &[&str]) -> Option<Result<Self, TopicError>> {
        let topic = match levels {
            ["proplet", "create"] => Self::PropletCreate,
            ["proplet", "alive"] => Self::PropletAlive,
            ["proplet", "metrics"] => Self::PropletMetrics,
            ["proplet", "task_metrics"] => Self::TaskMetrics,
            ["proplet", "results"] => Self::TaskResults,
            ["manager", "start"] => Self::TaskStart,
            ["manager", "stop"] => Self::TaskStop,
            ["manager", proplet, "start"] => {
                return Some(id(proplet).map(|proplet| Self::DirectStart { proplet }));
            }
            ["manager", proplet, "stop"] => {
                return Some(id(proplet).map(|proplet| Self::DirectStop { proplet }));
            }
            _ => return None,
        };
        Some(Ok(topic))
    }

    fn from_fl(levels: &[&str]) -> Option<Result<Self, TopicError>> {
        let topic = match levels {
            ["fl", "rounds", "start"] => Ok(Self::RoundStart),
            ["fl", "rounds", round, "opened"] => id(round).map(|round| Self::RoundOpened { round }),
            ["fl", "rounds", round, "absent"] => id(round).map(|round| Self::RoundAbsent { round }),
            ["fl", "rounds", round, "complete"] => {
                id(round).map(|round| Self::RoundComplete { round })
            }
            ["fl", "rounds", round, "failed"] => id(round).map(|round| Self::RoundFailed { round }),
            ["fl", "rounds", round, "updates", proplet] => {
                id(round).and_then(|round| Ok(Self::RoundUpdate { round, proplet: id(proplet)? }))
            }
            ["fl", "rounds", round, "acks", proplet] => {
                id(round).and_then(|round| Ok(Self::RoundAck { round, proplet: id(proplet)? }))
            }
            ["fml", "updates"] => Ok(Self::ForwardedUpdate),
            ["fl", "models", "publish"] => Ok(Self::ModelPublish),
            ["fl", "models", "latest"] => Ok(Self::ModelLatest),
            ["fl", "models", name] => version(name).map(|version| Self::Model { version }),
            _ => return None,
        };
        Some(topic)
    }
}

/// The topic as it stands in the contract, with `{B}` for the control topics' base.
impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(control) = self.control() {
            return write!(f, "{{B}}/control/{control}");
        }
        match self {
            Self::RoundStart => write!(f, "fl/rounds/start"),
            Self::RoundOpened { round } => write!(f, "fl/rounds/{round}/opened"),
            Self::RoundUpdate { round, proplet } => {
                write!(f, "fl/rounds/{round}/updates/{proplet}")
            }
            Self::RoundAck { round, proplet } => write!(f, "fl/rounds/{round}/acks/{proplet}"),
            Self::RoundAbsent { round } => write!(f, "fl/rounds/{round}/absent"),
            Self::RoundComplete { round } => write!(f, "fl/rounds/{round}/complete"),
            Self::RoundFailed { round } => write!(f, "fl/rounds/{round}/failed"),
            Self::ForwardedUpdate => write!(f, "fml/updates"),
            Self::ModelPublish => write!(f, "fl/models/publish"),
            Self::Model { version } => f.write_str(&model_topic(&version.to_string())),
            Self::ModelLatest => write!(f, "fl/models/latest"),
            Self::PropletCreate
            | Self::PropletAlive
            | Self::PropletMetrics
            | Self::TaskMetrics
            | Self::TaskResults
            | Self::TaskStart
            | Self::TaskStop
            | Self::DirectStart { .. }
            | Self::DirectStop { .. } => unreachable!("control topics were rendered above"),
        }
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let levels: Vec<&str> = text.split('/').collect();
        let parsed = match &levels[..] {
            ["{B}", "control", rest @ ..] => Self::from_control(rest),
            levels => Self::from_fl(levels),
        };
        parsed.unwrap_or_else(|| Err(unknown(text)))
    }
}

fn unknown(text: &str) -> TopicError {
    TopicError::Unknown(text.chars().take(200).collect())
}

fn id<T: FromStr<Err = IdError>>(level: &str) -> Result<T, TopicError> {
    Ok(level.parse()?)
}

/// Only the canonical spelling: no sign, no leading zero, so that one version has one address.
fn version(level: &str) -> Result<ModelVersion, TopicError> {
    level
        .strip_prefix("global_model_v")
        .and_then(|digits| digits.parse::<u64>().ok().filter(|n| n.to_string() == digits))
        .map(ModelVersion)
        .ok_or_else(|| TopicError::Version(level.chars().take(200).collect()))
}
