//! What the model server hears.

use bytes::Bytes;
use protocol::{
    Digest, Envelope, ModelVersion, OpenError, Topic,
    message::{Model, ModelLatest},
};

/// Longest model that is looked at whatever the settings say, in bytes.
pub const MODEL_LEN_MAX: usize = 256 << 20;

/// What the model server understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    Publish(Offer),
    /// The model server's own word, come back from the broker.
    Latest(ModelLatest),
}

/// A model, as it was written by whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub(crate) version: ModelVersion,
    pub(crate) digest: Digest,
    pub(crate) payload: Bytes,
}

impl Offer {
    /// Reads just enough of a model to know that it is one, and which.
    pub fn read(payload: Bytes) -> Result<Self, serde_json::Error> {
        let model: Model = serde_json::from_slice(&payload)?;
        Ok(Self { version: model.version, digest: Digest::of(&payload), payload })
    }

    pub const fn version(&self) -> ModelVersion {
        self.version
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
            Topic::ModelPublish => {
                let len = payload.len();
                if len > MODEL_LEN_MAX {
                    return Err(OpenError::TooLarge { topic, len, len_max: MODEL_LEN_MAX });
                }
                let offer = Offer::read(payload);
                offer.map(Self::Publish).map_err(|source| OpenError::Malformed { topic, source })
            }
            Topic::ModelLatest => Ok(Self::Latest(Envelope { topic, payload }.open()?)),
            Topic::RoundStart
            | Topic::RoundOpened { .. }
            | Topic::RoundUpdate { .. }
            | Topic::RoundAck { .. }
            | Topic::RoundAbsent { .. }
            | Topic::RoundComplete { .. }
            | Topic::RoundFailed { .. }
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
            | Topic::DirectStop { .. } => Err(OpenError::NotForUs(topic)),
        }
    }
}
