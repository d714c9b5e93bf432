//! The name of a client: its user name at the broker, and the common name of its certificate.

use std::{fmt, str::FromStr};

use protocol::{IdError, PropletId};
use serde::{Deserialize, Serialize};

/// Written like every id of the platform, since a proplet's name is its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(PropletId);

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a name: {why}")]
pub struct NameError {
    given: String,
    why: IdError,
}

impl Name {
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The proplet of this name.
    pub const fn as_proplet(&self) -> &PropletId {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let given = || text.chars().take(64).collect();
        text.parse().map(Self).map_err(|why| NameError { given: given(), why })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
