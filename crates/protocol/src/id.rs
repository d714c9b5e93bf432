//! Identifiers, checked once where they enter, so that none can ever forge a topic level, a
//! wildcard or a path.

mod text;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use self::text::Text;

/// Longest id accepted, in bytes.
const LEN_MAX: usize = 128;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("an id must not be empty")]
    Empty,
    #[error("an id has at most {LEN_MAX} bytes, this one has {0}")]
    TooLong(usize),
    #[error("{0:?} is not allowed in an id; it takes A-Z a-z 0-9 . _ -")]
    Char(char),
    #[error("{0:?} is not an id")]
    Dots(String),
}

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Text);

        impl $name {
            /// The id as text; never empty.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Text::new(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

id! {
    /// One round of training.
    RoundId;
    /// One training session: many rounds.
    SessionId;
    /// One edge agent.
    PropletId;
    /// One unit of work; the manager makes them as UUIDs.
    TaskId;
    /// The tenant part of the control topics.
    DomainId;
    /// The channel part of the control topics.
    ChannelId;
    /// One gap-free line of models, by its name; `global_model` by default.
    ModelLine;
}

/// The line that rounds are on where nobody names another.
const LINE_DEFAULT: &str = "global_model";

impl ModelLine {
    pub fn is_default(&self) -> bool {
        self.as_str() == LINE_DEFAULT
    }
}

impl Default for ModelLine {
    fn default() -> Self {
        LINE_DEFAULT.parse().expect("the default name is an id")
    }
}

/// The ordinal of a global model; 0 is the initial one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ModelVersion(pub u64);

impl ModelVersion {
    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > LEN_MAX {
        return Err(IdError::TooLong(text.len()));
    }
    if !text.bytes().all(|byte| is_allowed(char::from(byte)))
        && let Some(bad) = text.chars().find(|c| !is_allowed(*c))
    {
        return Err(IdError::Char(bad));
    }
    if text == "." || text == ".." {
        return Err(IdError::Dots(text.to_owned()));
    }
    Ok(())
}

const fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}
