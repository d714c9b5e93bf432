//! What the coordinator hears.

use bytes::Bytes;
use protocol::{
    Digest, Envelope, Manifest, ModelLine, ModelUri, ModelVersion, OpenError, PropletId, RoundId,
    Topic,
    manifest::CHUNK_BYTES_MAX,
    message::{
        Model, ModelBlob, ModelLatest, ModelPublishWants, RoundAbsent, RoundStart, is_blob_form,
    },
};
use serde::Deserialize;

use crate::{
    Base, PAYLOAD_LEN_MAX,
    rules::{NOTICE_LEN_MAX, START_LEN_MAX},
};

/// Above this, a version is not one that anybody has counted up to.
const VERSION_MAX: u64 = 1 << 53;

/// What the coordinator understands.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    Start(Box<RoundStart>),
    /// A start that is not valid, of a round that can be named.
    BadStart {
        round: RoundId,
        what: String,
    },
    /// A forwarded update; opened where the limits are known.
    Update(Bytes),
    Absent(RoundAbsent),
    Latest(ModelLatest),
    Model(BaseModel),
    /// A published model whose tensors go in pieces.
    ModelBlob {
        uri: ModelUri,
        blob: Manifest,
    },
    /// A piece of one.
    ModelPiece {
        uri: ModelUri,
        index: u32,
        bytes: Bytes,
    },
    /// A piece of an update.
    Piece {
        round: RoundId,
        proplet: PropletId,
        index: u32,
        bytes: Bytes,
    },
    /// The model server lacks pieces of a new model.
    Wants(ModelPublishWants),
}

/// What has to be known of a published model; its numbers are not held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseModel {
    pub uri: ModelUri,
    pub base: Base,
    pub digest: Digest,
}

#[derive(Deserialize)]
struct Named {
    round_id: RoundId,
}

impl TryFrom<Envelope> for News {
    type Error = OpenError;

    fn try_from(envelope: Envelope) -> Result<Self, OpenError> {
        match &envelope.topic {
            Topic::RoundStart => start(&envelope),
            Topic::ForwardedUpdate => Ok(Self::Update(envelope.payload)),
            Topic::RoundAbsent { round } => {
                bounded(&envelope, NOTICE_LEN_MAX)?;
                let absent: RoundAbsent = envelope.open()?;
                if absent.round_id == *round {
                    return Ok(Self::Absent(absent));
                }
                let what = format!("the payload names round {}", absent.round_id);
                Err(OpenError::Invalid { topic: envelope.topic, what })
            }
            Topic::ModelLatest { line } => latest(&envelope, line),
            Topic::Model { uri } if is_blob_form(&envelope.payload) => {
                let ModelBlob { version, blob } = envelope.open()?;
                same_version(&envelope, uri.version, version)?;
                Ok(Self::ModelBlob { uri: uri.clone(), blob })
            }
            Topic::Model { uri } => model(&envelope, uri),
            Topic::ModelChunk { uri, index } => {
                bounded(&envelope, CHUNK_BYTES_MAX as usize)?;
                let (uri, index) = (uri.clone(), *index);
                Ok(Self::ModelPiece { uri, index, bytes: envelope.payload })
            }
            Topic::UpdateChunk { round, proplet, index } => {
                bounded(&envelope, CHUNK_BYTES_MAX as usize)?;
                let (round, proplet, index) = (round.clone(), proplet.clone(), *index);
                Ok(Self::Piece { round, proplet, index, bytes: envelope.payload })
            }
            Topic::ModelPublishWants { line } => {
                match ModelPublishWants::read(line.clone(), &envelope.payload) {
                    Ok(wants) => Ok(Self::Wants(wants)),
                    Err(why) => {
                        let what = why.to_string();
                        Err(OpenError::Invalid { topic: envelope.topic, what })
                    }
                }
            }
            Topic::RoundOpened { .. }
            | Topic::RoundUpdate { .. }
            | Topic::RoundVariate { .. }
            | Topic::RoundAck { .. }
            | Topic::RoundComplete { .. }
            | Topic::RoundFailed { .. }
            | Topic::ModelPublish { .. }
            | Topic::PropletCreate
            | Topic::PropletAlive
            | Topic::PropletMetrics
            | Topic::TaskMetrics
            | Topic::TaskResults
            | Topic::TaskStart
            | Topic::TaskStop
            | Topic::DirectStart { .. }
            | Topic::DirectStop { .. }
            | Topic::UpdateWants { .. }
            | Topic::ModelPublishChunk { .. }
            | Topic::ModelWants { .. }
            | Topic::ModuleWants
            | Topic::ModuleChunk { .. }
            | Topic::SessionStart
            | Topic::SessionCommand { .. }
            | Topic::SessionStatus { .. } => Err(OpenError::NotForUs(envelope.topic)),
        }
    }
}

fn start(envelope: &Envelope) -> Result<News, OpenError> {
    bounded(envelope, PAYLOAD_LEN_MAX)?;
    let read = bounded(envelope, START_LEN_MAX).and_then(|()| envelope.open::<RoundStart>());
    match read {
        Ok(start) => Ok(News::Start(Box::new(start))),
        Err(why) => match envelope.open::<Named>() {
            Ok(named) => Ok(News::BadStart { round: named.round_id, what: why.to_string() }),
            Err(_) => Err(why),
        },
    }
}

fn latest(envelope: &Envelope, line: &ModelLine) -> Result<News, OpenError> {
    bounded(envelope, NOTICE_LEN_MAX)?;
    let latest: ModelLatest = envelope.open()?;
    let version = latest.version;
    let expected = ModelUri { line: line.clone(), version };
    if version.0 <= VERSION_MAX && latest.topic == expected {
        return Ok(News::Latest(latest));
    }
    let what = format!("version {version} at {}, versions go up to {VERSION_MAX}", latest.topic);
    Err(OpenError::Invalid { topic: envelope.topic.clone(), what })
}

fn model(envelope: &Envelope, uri: &ModelUri) -> Result<News, OpenError> {
    bounded(envelope, PAYLOAD_LEN_MAX)?;
    let model = Model::read(&envelope.payload).map_err(|why| OpenError::Invalid {
        topic: envelope.topic.clone(),
        what: why.to_string(),
    })?;
    same_version(envelope, uri.version, model.version)?;
    let digest = Digest::of(&envelope.payload);
    Ok(News::Model(BaseModel { uri: uri.clone(), base: Base::of(&model), digest }))
}

fn same_version(
    envelope: &Envelope,
    expected: ModelVersion,
    found: ModelVersion,
) -> Result<(), OpenError> {
    if expected == found {
        return Ok(());
    }
    let what = format!("the payload names version {found}");
    Err(OpenError::Invalid { topic: envelope.topic.clone(), what })
}

fn bounded(envelope: &Envelope, len_max: usize) -> Result<(), OpenError> {
    let len = envelope.payload.len();
    if len <= len_max {
        return Ok(());
    }
    Err(OpenError::TooLarge { topic: envelope.topic.clone(), len, len_max })
}
