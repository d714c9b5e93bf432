//! What a proplet understands of what it hears.

use bytes::Bytes;
use protocol::{
    Digest, Envelope, Manifest, ModelUri, OpenError, Topic,
    message::{ModelBlob, TaskStart, TaskStop, UpdateAck, UpdateWants, is_blob_form},
};

/// A message to this role.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    Start(Box<TaskStart>),
    Stop(TaskStop),
    Ack(UpdateAck),
    /// A model, sealed: only the guest looks inside.
    Model {
        uri: ModelUri,
        payload: Bytes,
    },
    /// A model that comes in pieces.
    ModelBlob {
        uri: ModelUri,
        blob: Manifest,
    },
    /// A piece of a model.
    ModelChunk {
        uri: ModelUri,
        index: u32,
        payload: Bytes,
    },
    /// A piece of a module.
    ModuleChunk {
        sha256: Digest,
        index: u32,
        payload: Bytes,
    },
    /// Somebody lacks pieces of an update of ours.
    Wants(UpdateWants),
}

impl TryFrom<Envelope> for News {
    type Error = OpenError;

    fn try_from(envelope: Envelope) -> Result<Self, OpenError> {
        match &envelope.topic {
            Topic::TaskStart | Topic::DirectStart { .. } => {
                envelope.open().map(|start| Self::Start(Box::new(start)))
            }
            Topic::TaskStop | Topic::DirectStop { .. } => envelope.open().map(Self::Stop),
            Topic::RoundAck { round, proplet } => {
                let ack =
                    UpdateAck::read(proplet.clone(), &envelope.payload).map_err(|source| {
                        OpenError::Malformed { topic: envelope.topic.clone(), source }
                    })?;
                if ack.round_id == *round {
                    return Ok(Self::Ack(ack));
                }
                let what = format!("the payload names round {}", ack.round_id);
                Err(OpenError::Invalid { topic: envelope.topic.clone(), what })
            }
            // What a broker sends when a retained message is deleted.
            Topic::Model { .. } if envelope.payload.is_empty() => {
                let what = "a model of no bytes".to_owned();
                Err(OpenError::Invalid { topic: envelope.topic, what })
            }
            Topic::Model { uri } if is_blob_form(&envelope.payload) => {
                let ModelBlob { version, blob } = envelope.open()?;
                if version == uri.version {
                    return Ok(Self::ModelBlob { uri: uri.clone(), blob });
                }
                let what = format!("the payload names version {version}");
                Err(OpenError::Invalid { topic: envelope.topic, what })
            }
            Topic::ModelChunk { uri, index } => {
                let (uri, index, payload) = (uri.clone(), *index, envelope.payload);
                Ok(Self::ModelChunk { uri, index, payload })
            }
            Topic::ModuleChunk { sha256, index } => {
                let (sha256, index, payload) = (*sha256, *index, envelope.payload);
                Ok(Self::ModuleChunk { sha256, index, payload })
            }
            Topic::UpdateWants { round, proplet } => {
                UpdateWants::read(round.clone(), proplet.clone(), &envelope.payload)
                    .map(Self::Wants)
                    .map_err(|why| OpenError::Invalid {
                        topic: envelope.topic.clone(),
                        what: why.to_string(),
                    })
            }
            Topic::Model { uri } => Ok(Self::Model { uri: uri.clone(), payload: envelope.payload }),
            Topic::RoundStart
            | Topic::RoundOpened { .. }
            | Topic::RoundUpdate { .. }
            | Topic::RoundAbsent { .. }
            | Topic::RoundComplete { .. }
            | Topic::RoundFailed { .. }
            | Topic::ForwardedUpdate
            | Topic::ModelPublish { .. }
            | Topic::ModelLatest { .. }
            | Topic::PropletCreate
            | Topic::PropletAlive
            | Topic::PropletMetrics
            | Topic::TaskMetrics
            | Topic::TaskResults
            | Topic::UpdateChunk { .. }
            | Topic::ModelPublishWants { .. }
            | Topic::ModelPublishChunk { .. }
            | Topic::ModelWants { .. }
            | Topic::ModuleWants
            | Topic::SessionStart
            | Topic::SessionCommand { .. }
            | Topic::SessionStatus { .. } => Err(OpenError::NotForUs(envelope.topic)),
        }
    }
}
