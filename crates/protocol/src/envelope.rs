//! A message as it travels: a typed address, and bytes nobody has to open.

use std::fmt::{self, Write as _};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Topic, json::Text};

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
        Envelope { topic: self.topic(), payload: Text::of(self).into_bytes() }
    }
}

/// Why an envelope could not be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("message on {topic}: {}", brief(source))]
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

/// Longest text of an error that is passed on, in characters.
const ERROR_LEN_MAX: usize = 400;

/// What serde has to say, but not the megabytes that it quotes from a hostile payload.
pub(crate) fn brief(error: &serde_json::Error) -> String {
    let mut text = Brief { text: String::new(), left: ERROR_LEN_MAX };
    if write!(text, "{error}").is_ok() {
        return text.text;
    }
    let (line, column) = (error.line(), error.column());
    format!("{}... at line {line} column {column}", text.text)
}

/// Takes so many characters, and no more.
struct Brief {
    text: String,
    left: usize,
}

impl fmt::Write for Brief {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(c);
        }
        Ok(())
    }
}

impl Envelope {
    /// Reads the payload as `M`.
    pub fn open<M: DeserializeOwned>(&self) -> Result<M, OpenError> {
        serde_json::from_slice(&self.payload)
            .map_err(|source| OpenError::Malformed { topic: self.topic.clone(), source })
    }
}
