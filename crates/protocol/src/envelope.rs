//! A message as it travels: a typed address, and bytes nobody has to open.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::Topic;

/// An address and a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub topic: Topic,
    pub payload: Bytes,
}

/// A message knows its own topic, so the two cannot disagree.
pub trait Letter: Serialize {
    /// Where this message goes.
    fn topic(&self) -> Topic;

    /// The message as it travels.
    fn seal(&self) -> Envelope {
        let payload = serde_json::to_vec(self).expect("wire types always serialize");
        Envelope { topic: self.topic(), payload: payload.into() }
    }
}

/// Why an envelope could not be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("message on {topic}: {source}")]
    Malformed {
        topic: Topic,
        #[source]
        source: serde_json::Error,
    },
    #[error("message on {topic}: {what}")]
    Invalid { topic: Topic, what: String },
    #[error("message on {topic}: {len} bytes, at most {len_max} are taken")]
    TooLarge { topic: Topic, len: usize, len_max: usize },
    #[error("message on {0}: not addressed to this role")]
    NotForUs(Topic),
}

impl Envelope {
    /// Reads the payload as `M`.
    pub fn open<M: DeserializeOwned>(&self) -> Result<M, OpenError> {
        serde_json::from_slice(&self.payload)
            .map_err(|source| OpenError::Malformed { topic: self.topic.clone(), source })
    }
}
