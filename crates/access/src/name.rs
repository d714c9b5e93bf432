//! The name of a client: its user name at the broker, and the common name of its certificate.

use std::{fmt, str::FromStr};

use protocol::{IdError, PropletId};
use serde::{Deserialize, Serialize};

use crate::secret::SECRET_LEN;

/// Written like every id of the platform, since a proplet's name is its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(PropletId);

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{given:?} is not a name: {why}")]
    Id { given: String, why: IdError },
    /// It is not repeated: names stand in logs.
    #[error("what ends in a point and {SECRET_LEN} hexadecimal digits is a token, and not a name")]
    Secret,
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
        if text.rsplit_once('.').is_some_and(|(_, last)| is_secret(last)) {
            return Err(NameError::Secret);
        }
        let given = || text.chars().take(64).collect();
        text.parse().map(Self).map_err(|why| NameError::Id { given: given(), why })
    }
}

/// Whether it may be the secret of a token, or a part of one.
fn is_secret(text: &str) -> bool {
    text.len() == SECRET_LEN && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
