//! Single levels of topics, read and written strictly, so that nothing has two addresses.

use std::{borrow::Cow, str::FromStr};

use super::{Topic, TopicError};
use crate::{Digest, IdError, ModelLine, ModelUri, ModelVersion, manifest::CHUNKS_MAX};

/// Where a line is spoken of.
pub(super) fn home(line: &ModelLine) -> Cow<'static, str> {
    if line.is_default() { "fl/models".into() } else { format!("fl/lines/{line}").into() }
}

/// The default line has one home alone, so that no topic has two spellings.
pub(super) fn other_line(name: &str) -> Result<ModelLine, TopicError> {
    let line: ModelLine = id(name)?;
    if line.is_default() { Err(unknown(name)) } else { Ok(line) }
}

pub(super) fn model(name: &str) -> Result<ModelUri, TopicError> {
    let bad = || TopicError::Version(name.chars().take(200).collect());
    let (line, digits) = name.rsplit_once("_v").ok_or_else(bad)?;
    Ok(ModelUri { line: id(line)?, version: version(digits).ok_or_else(bad)? })
}

pub(super) fn publish_chunk(line: ModelLine, name: &str, index: &str) -> Result<Topic, TopicError> {
    let bad = || TopicError::Version(name.chars().take(200).collect());
    let version = name.strip_prefix('v').and_then(version).ok_or_else(bad)?;
    Ok(Topic::ModelPublishChunk { uri: ModelUri { line, version }, index: chunk(index)? })
}

pub(super) fn unknown(text: &str) -> TopicError {
    TopicError::Unknown(text.chars().take(200).collect())
}

pub(super) fn id<T: FromStr<Err = IdError>>(level: &str) -> Result<T, TopicError> {
    Ok(level.parse()?)
}

/// Only the canonical spelling: no sign, no leading zero, so that one version has one address.
pub(super) fn version(digits: &str) -> Option<ModelVersion> {
    digits.parse::<u64>().ok().filter(|n| n.to_string() == digits).map(ModelVersion)
}

/// As with versions, one spelling a digest.
pub(super) fn digest(level: &str) -> Result<Digest, TopicError> {
    level
        .parse::<Digest>()
        .ok()
        .filter(|digest| digest.to_string() == level)
        .ok_or_else(|| TopicError::Digest(level.chars().take(200).collect()))
}

pub(super) fn chunk(level: &str) -> Result<u32, TopicError> {
    level
        .parse::<u32>()
        .ok()
        .filter(|n| n.to_string() == level && *n < CHUNKS_MAX)
        .ok_or_else(|| TopicError::Chunk(level.chars().take(200).collect()))
}
