//! What a proplet understands of what it hears.

use bytes::Bytes;
use protocol::{
    Digest, Envelope, Manifest, ModelUri, OpenError, PropletId, RoundId, Topic,
    message::{
        ModelBlob, TaskStart, TaskStop, UpdateAck, UpdateWants, is_blob_form, read_variate_series,
    },
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
    /// The server's control variate for a round, sealed: only the guest looks inside.
    Variate {
        round: RoundId,
        series: RoundId,
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
                let directed = matches!(envelope.topic, Topic::DirectStart { .. });
                let start: TaskStart = envelope.open()?;
                Ok(Self::Start(Box::new(TaskStart { directed, ..start })))
            }
            Topic::TaskStop | Topic::DirectStop { .. } => envelope.open().map(Self::Stop),
            Topic::RoundAck { round, proplet } => ack(&envelope, (round, proplet)),
            // What a broker sends when a retained message is deleted.
            Topic::Model { .. } | Topic::RoundVariate { .. } if envelope.payload.is_empty() => {
                let what = "a model, or what stands beside one, of no bytes".to_owned();
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
            Topic::RoundVariate { round } => variate(round.clone(), envelope),
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

/// A verdict of the round on whose topic it is said.
fn ack(envelope: &Envelope, (round, proplet): (&RoundId, &PropletId)) -> Result<News, OpenError> {
    let topic = || envelope.topic.clone();
    let ack = UpdateAck::read(proplet.clone(), &envelope.payload)
        .map_err(|source| OpenError::Malformed { topic: topic(), source })?;
    if ack.round_id == *round {
        return Ok(News::Ack(ack));
    }
    let what = format!("the payload names round {}", ack.round_id);
    Err(OpenError::Invalid { topic: topic(), what })
}

fn variate(round: RoundId, envelope: Envelope) -> Result<News, OpenError> {
    match read_variate_series(&envelope.payload) {
        Ok(series) => Ok(News::Variate { round, series, payload: envelope.payload }),
        Err(why) => {
            let what = format!("no control variate: {why}");
            Err(OpenError::Invalid { topic: envelope.topic, what })
        }
    }
}
