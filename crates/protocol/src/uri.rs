//! A model's address, parsed, so that it is never glued into a path or a topic.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ModelLine, ModelVersion, Topic, topic::model_topic};

/// The address of a model: `fl/models/{line}_v{version}`; that of the default line is
/// `fl/models/global_model_v{version}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelUri {
    pub line: ModelLine,
    pub version: ModelVersion,
}

/// A text that is not a model's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a model address; it takes {expected}",
    expected = model_topic(ModelLine::default().as_str(), "{N}"))]
pub struct ModelUriError(String);

impl ModelUri {
    /// Of the default line.
    pub fn global(version: ModelVersion) -> Self {
        Self { line: ModelLine::default(), version }
    }

    /// The one after this one.
    #[must_use]
    pub fn next(&self) -> Self {
        Self { line: self.line.clone(), version: self.version.next() }
    }
}

impl fmt::Display for ModelUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&model_topic(self.line.as_str(), &self.version.to_string()))
    }
}

impl FromStr for ModelUri {
    type Err = ModelUriError;

    fn from_str(text: &str) -> Result<Self, ModelUriError> {
        match text.parse() {
            Ok(Topic::Model { uri }) => Ok(uri),
            Ok(_) | Err(_) => Err(ModelUriError(text.chars().take(200).collect())),
        }
    }
}

impl TryFrom<String> for ModelUri {
    type Error = ModelUriError;

    fn try_from(text: String) -> Result<Self, ModelUriError> {
        text.parse()
    }
}

impl From<ModelUri> for String {
    fn from(uri: ModelUri) -> Self {
        uri.to_string()
    }
}
