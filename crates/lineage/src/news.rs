//! What the model server hears.

use bytes::Bytes;
use protocol::{
    Digest, Envelope, Form, ModelVersion, OpenError, Topic,
    message::{Model, ModelBlob, ModelError, ModelLatest, ModelWants, is_blob_form},
};

/// Longest model that is looked at whatever the settings say, in bytes.
pub const MODEL_LEN_MAX: usize = 256 << 20;

/// What the model server understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    Publish(Offer),
    /// The same, in pieces.
    PublishBlob(ModelBlob),
    /// A piece of a model on its way here.
    Piece(Piece),
    /// Somebody lacks the pieces of a model.
    Wants(ModelWants),
    /// The model server's own word, come back from the broker.
    Latest(ModelLatest),
}

/// A piece of a model, on its way in or out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub version: ModelVersion,
    pub index: u32,
    pub bytes: Bytes,
}

/// A model, as it was written by whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub(crate) version: ModelVersion,
    pub(crate) digest: Digest,
    pub(crate) payload: Bytes,
    pub(crate) form: Form,
}

impl Offer {
    /// Reads just enough of a model to know that it is one, and which.
    pub fn read(payload: Bytes) -> Result<Self, ModelError> {
        let Model { version, form, .. } = Model::read(&payload)?;
        Ok(Self { version, digest: Digest::of(&payload), payload, form })
    }

    pub const fn version(&self) -> ModelVersion {
        self.version
    }

    /// The model as it travels.
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Length of the payload, in bytes.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Never: a model is at least an object.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }
}

impl TryFrom<Envelope> for News {
    type Error = OpenError;

    fn try_from(envelope: Envelope) -> Result<Self, OpenError> {
        let Envelope { topic, payload } = envelope;
        match topic {
            Topic::ModelPublish { .. } if is_blob_form(&payload) => {
                Ok(Self::PublishBlob(Envelope { topic, payload }.open()?))
            }
            Topic::ModelPublishChunk { uri, index } => {
                Ok(Self::Piece(Piece { version: uri.version, index, bytes: payload }))
            }
            Topic::ModelWants { ref line } => ModelWants::read(line.clone(), &payload)
                .map(Self::Wants)
                .map_err(|why| OpenError::Invalid { topic, what: why.to_string() }),
            Topic::ModelPublish { .. } => {
                let len = payload.len();
                if len > MODEL_LEN_MAX {
                    return Err(OpenError::TooLarge { topic, len, len_max: MODEL_LEN_MAX });
                }
                let offer = Offer::read(payload);
                offer.map(Self::Publish).map_err(|why| {
                    let what = why.to_string();
                    OpenError::Invalid { topic, what }
                })
            }
            Topic::ModelLatest { .. } => Ok(Self::Latest(Envelope { topic, payload }.open()?)),
            Topic::RoundStart
            | Topic::RoundOpened { .. }
            | Topic::RoundUpdate { .. }
            | Topic::RoundAck { .. }
            | Topic::RoundAbsent { .. }
            | Topic::RoundComplete { .. }
            | Topic::RoundFailed { .. }
            | Topic::RoundVariate { .. }
            | Topic::ForwardedUpdate
            | Topic::Model { .. }
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
            | Topic::UpdateChunk { .. }
            | Topic::ModelPublishWants { .. }
            | Topic::ModelChunk { .. }
            | Topic::ModuleWants
            | Topic::ModuleChunk { .. }
            | Topic::SessionStart
            | Topic::SessionCommand { .. }
            | Topic::SessionStatus { .. } => Err(OpenError::NotForUs(topic)),
        }
    }
}
