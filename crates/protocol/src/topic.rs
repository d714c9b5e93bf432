//! Every MQTT topic there is. No other file in the workspace spells one.
//!
//! `{B}` is `m/{domain}/c/{channel}`. A [`Namespace`] renders and parses topics for one platform;
//! [`TOPICS`] is the table that `docs/topics.md` is made from.

mod acl;
mod filter;
mod level;
mod namespace;
mod table;

use std::{borrow::Cow, fmt, str::FromStr};

use level::{chunk, digest, home, id, model, other_line, publish_chunk, unknown};

pub use acl::{Access, Grants, Role, RoleError};
pub use filter::Filter;
pub use namespace::Namespace;
pub use table::{TOPICS, TopicRow};

use crate::{
    Digest, IdError, ModelLine, ModelUri, PropletId, RoundId, SessionId, manifest::CHUNKS_MAX,
};

/// The address of a message, without prefix, domain and channel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    RoundStart,
    RoundOpened {
        round: RoundId,
    },
    RoundUpdate {
        round: RoundId,
        proplet: PropletId,
    },
    RoundAck {
        round: RoundId,
        proplet: PropletId,
    },
    RoundAbsent {
        round: RoundId,
    },
    RoundComplete {
        round: RoundId,
    },
    RoundFailed {
        round: RoundId,
    },
    /// The server's control variate, for those who take part in the round.
    RoundVariate {
        round: RoundId,
    },
    ForwardedUpdate,
    ModelPublish {
        line: ModelLine,
    },
    Model {
        uri: ModelUri,
    },
    ModelLatest {
        line: ModelLine,
    },
    PropletCreate,
    PropletAlive,
    PropletMetrics,
    TaskMetrics,
    TaskResults,
    TaskStart,
    TaskStop,
    DirectStart {
        proplet: PropletId,
    },
    DirectStop {
        proplet: PropletId,
    },
    /// Which pieces of an update the coordinator lacks.
    UpdateWants {
        round: RoundId,
        proplet: PropletId,
    },
    UpdateChunk {
        round: RoundId,
        proplet: PropletId,
        index: u32,
    },
    /// Which pieces of a new model the model server lacks.
    ModelPublishWants {
        line: ModelLine,
    },
    ModelPublishChunk {
        uri: ModelUri,
        index: u32,
    },
    /// Somebody lacks the pieces of a model that is no longer shown.
    ModelWants {
        line: ModelLine,
    },
    ModelChunk {
        uri: ModelUri,
        index: u32,
    },
    /// Somebody lacks the pieces of a task's module.
    ModuleWants,
    /// A piece of a task's module, named by the digest of the whole.
    ModuleChunk {
        sha256: Digest,
        index: u32,
    },
    SessionStart,
    SessionCommand {
        session: SessionId,
    },
    SessionStatus {
        session: SessionId,
    },
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
    #[error("{0:?} is not the digest of a module")]
    Digest(String),
    #[error("{0:?} is not the number of a chunk; it takes 0 to {max}", max = CHUNKS_MAX - 1)]
    Chunk(String),
}

/// The address of a model whose version is written as `version`.
pub(crate) fn model_topic(line: &str, version: &str) -> String {
    format!("fl/models/{line}_v{version}")
}

impl Topic {
    /// Whether the broker keeps the last message for late subscribers.
    pub const fn is_retained(&self) -> bool {
        matches!(
            self,
            Self::Model { .. }
                | Self::ModelLatest { .. }
                | Self::ModelChunk { .. }
                | Self::ModuleChunk { .. }
                | Self::SessionStatus { .. }
                | Self::RoundVariate { .. }
        )
    }

    /// Of which line of models it is.
    pub const fn line(&self) -> Option<&ModelLine> {
        if let Self::ModelPublish { line }
        | Self::ModelLatest { line }
        | Self::ModelPublishWants { line }
        | Self::ModelWants { line }
        | Self::Model { uri: ModelUri { line, .. } }
        | Self::ModelPublishChunk { uri: ModelUri { line, .. }, .. }
        | Self::ModelChunk { uri: ModelUri { line, .. }, .. } = self
        {
            Some(line)
        } else {
            None
        }
    }

    /// Whether the payload is a piece of a blob.
    pub const fn is_chunk(&self) -> bool {
        matches!(
            self,
            Self::UpdateChunk { .. }
                | Self::ModelPublishChunk { .. }
                | Self::ModelChunk { .. }
                | Self::ModuleChunk { .. }
        )
    }

    /// The part below `{B}/control`, for topics that live there.
    fn control(&self) -> Option<Cow<'static, str>> {
        let text = match self {
            Self::PropletCreate => Cow::Borrowed("proplet/create"),
            Self::PropletAlive => Cow::Borrowed("proplet/alive"),
            Self::PropletMetrics => Cow::Borrowed("proplet/metrics"),
            Self::TaskMetrics => Cow::Borrowed("proplet/task_metrics"),
            Self::TaskResults => Cow::Borrowed("proplet/results"),
            Self::ModuleWants => Cow::Borrowed("proplet/module_wants"),
            Self::TaskStart => Cow::Borrowed("manager/start"),
            Self::TaskStop => Cow::Borrowed("manager/stop"),
            Self::DirectStart { proplet } => Cow::Owned(format!("manager/{proplet}/start")),
            Self::DirectStop { proplet } => Cow::Owned(format!("manager/{proplet}/stop")),
            Self::ModuleChunk { sha256, index } => {
                Cow::Owned(format!("manager/modules/{sha256}/chunks/{index}"))
            }
            Self::RoundStart
            | Self::RoundOpened { .. }
            | Self::RoundUpdate { .. }
            | Self::RoundAck { .. }
            | Self::RoundAbsent { .. }
            | Self::RoundComplete { .. }
            | Self::RoundFailed { .. }
            | Self::RoundVariate { .. }
            | Self::ForwardedUpdate
            | Self::ModelPublish { .. }
            | Self::Model { .. }
            | Self::ModelLatest { .. }
            | Self::UpdateWants { .. }
            | Self::UpdateChunk { .. }
            | Self::ModelPublishWants { .. }
            | Self::ModelPublishChunk { .. }
            | Self::ModelWants { .. }
            | Self::ModelChunk { .. }
            | Self::SessionStart
            | Self::SessionCommand { .. }
            | Self::SessionStatus { .. } => return None,
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
            ["proplet", "module_wants"] => Self::ModuleWants,
            ["manager", "start"] => Self::TaskStart,
            ["manager", "stop"] => Self::TaskStop,
            ["manager", proplet, "start"] => {
                return Some(id(proplet).map(|proplet| Self::DirectStart { proplet }));
            }
            ["manager", proplet, "stop"] => {
                return Some(id(proplet).map(|proplet| Self::DirectStop { proplet }));
            }
            ["manager", "modules", sha256, "chunks", index] => {
                let topic = digest(sha256)
                    .and_then(|sha256| Ok(Self::ModuleChunk { sha256, index: chunk(index)? }));
                return Some(topic);
            }
            _ => return None,
        };
        Some(Ok(topic))
    }

    fn from_fl(levels: &[&str]) -> Option<Result<Self, TopicError>> {
        if let [rest @ .., "chunks", index] = levels {
            return Self::from_chunk(rest, index);
        }
        let topic = match levels {
            ["fl", "rounds", "start"] => Ok(Self::RoundStart),
            ["fl", "rounds", round, "opened"] => id(round).map(|round| Self::RoundOpened { round }),
            ["fl", "rounds", round, "absent"] => id(round).map(|round| Self::RoundAbsent { round }),
            ["fl", "rounds", round, "complete"] => {
                id(round).map(|round| Self::RoundComplete { round })
            }
            ["fl", "rounds", round, "variate"] => {
                id(round).map(|round| Self::RoundVariate { round })
            }
            ["fl", "rounds", round, "failed"] => id(round).map(|round| Self::RoundFailed { round }),
            ["fl", "rounds", round, "updates", proplet] => {
                id(round).and_then(|round| Ok(Self::RoundUpdate { round, proplet: id(proplet)? }))
            }
            ["fl", "rounds", round, "acks", proplet] => {
                id(round).and_then(|round| Ok(Self::RoundAck { round, proplet: id(proplet)? }))
            }
            ["fl", "rounds", round, "wants", proplet] => {
                id(round).and_then(|round| Ok(Self::UpdateWants { round, proplet: id(proplet)? }))
            }
            ["fl", "sessions", "start"] => Ok(Self::SessionStart),
            ["fl", "sessions", session, "command"] => {
                id(session).map(|session| Self::SessionCommand { session })
            }
            ["fl", "sessions", session, "status"] => {
                id(session).map(|session| Self::SessionStatus { session })
            }
            ["fml", "updates"] => Ok(Self::ForwardedUpdate),
            ["fl", "models", rest @ ..] => return Self::from_line(Ok(ModelLine::default()), rest),
            ["fl", "lines", name, rest @ ..] => return Self::from_line(other_line(name), rest),
            _ => return None,
        };
        Some(topic)
    }

    /// What is said of one line of models; of the default line where the models are, too.
    fn from_line(
        line: Result<ModelLine, TopicError>,
        levels: &[&str],
    ) -> Option<Result<Self, TopicError>> {
        let is_default = line.as_ref().is_ok_and(ModelLine::is_default);
        let topic = match levels {
            ["publish"] => line.map(|line| Self::ModelPublish { line }),
            ["publish", "wants"] => line.map(|line| Self::ModelPublishWants { line }),
            ["latest"] => line.map(|line| Self::ModelLatest { line }),
            ["wants"] => line.map(|line| Self::ModelWants { line }),
            [name] if is_default => model(name).map(|uri| Self::Model { uri }),
            _ => return None,
        };
        Some(topic)
    }

    /// A piece of what stands on the topic of the levels before `chunks`.
    fn from_chunk(of: &[&str], index: &str) -> Option<Result<Self, TopicError>> {
        let topic = match of {
            ["fl", "rounds", round, "updates", proplet] => id(round).and_then(|round| {
                Ok(Self::UpdateChunk { round, proplet: id(proplet)?, index: chunk(index)? })
            }),
            ["fl", "models", "publish", name] => publish_chunk(ModelLine::default(), name, index),
            ["fl", "lines", line, "publish", name] => {
                other_line(line).and_then(|line| publish_chunk(line, name, index))
            }
            ["fl", "models", name] => {
                model(name).and_then(|uri| Ok(Self::ModelChunk { uri, index: chunk(index)? }))
            }
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
            Self::RoundVariate { round } => write!(f, "fl/rounds/{round}/variate"),
            Self::ForwardedUpdate => write!(f, "fml/updates"),
            Self::ModelPublish { line } => write!(f, "{}/publish", home(line)),
            Self::Model { uri } => uri.fmt(f),
            Self::ModelLatest { line } => write!(f, "{}/latest", home(line)),
            Self::UpdateWants { round, proplet } => write!(f, "fl/rounds/{round}/wants/{proplet}"),
            Self::UpdateChunk { round, proplet, index } => {
                write!(f, "fl/rounds/{round}/updates/{proplet}/chunks/{index}")
            }
            Self::ModelPublishWants { line } => write!(f, "{}/publish/wants", home(line)),
            Self::ModelPublishChunk { uri, index } => {
                write!(f, "{}/publish/v{}/chunks/{index}", home(&uri.line), uri.version)
            }
            Self::ModelWants { line } => write!(f, "{}/wants", home(line)),
            Self::ModelChunk { uri, index } => write!(f, "{uri}/chunks/{index}"),
            Self::SessionStart => write!(f, "fl/sessions/start"),
            Self::SessionCommand { session } => write!(f, "fl/sessions/{session}/command"),
            Self::SessionStatus { session } => write!(f, "fl/sessions/{session}/status"),
            Self::PropletCreate
            | Self::PropletAlive
            | Self::PropletMetrics
            | Self::TaskMetrics
            | Self::TaskResults
            | Self::TaskStart
            | Self::TaskStop
            | Self::DirectStart { .. }
            | Self::DirectStop { .. }
            | Self::ModuleWants
            | Self::ModuleChunk { .. } => unreachable!("control topics were rendered above"),
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
