//! What can be wrong with what a guest was given, or with what it made, with the value.

use std::{fmt, io};

/// Why there is no update; the text goes to the task's log and its result.
#[derive(Debug)]
pub enum Error {
    MissingVar { name: &'static str },
    Hyperparams { why: String },
    Hyperparam { key: String, value: String, takes: &'static str },
    Read { path: String, source: io::Error },
    NoData { dir: String },
    Row { file: String, line: usize, why: String },
    BaseModel { why: String },
    NoTensor { name: String, found: String },
    Misfit { name: String, why: String },
    NotFinite { name: String },
    NoSamples,
    Variates { path: String, found: String, wanted: String },
    Encode { source: serde_json::Error },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingVar { name } => write!(f, "the environment has no variable {name}"),
            Self::Hyperparams { why } => write!(f, "hyperparams are not a JSON object: {why}"),
            Self::Hyperparam { key, value, takes } => {
                write!(f, "hyperparam {key:?} takes {takes}, not {value}")
            }
            Self::Read { path, source } => write!(f, "cannot read {path}: {source}"),
            Self::NoData { dir } => write!(f, "no rows to train on in the *.csv files of {dir}"),
            Self::Row { file, line, why } => write!(f, "{file}, line {line}: {why}"),
            Self::BaseModel { why } => write!(f, "the base model is not usable: {why}"),
            Self::NoTensor { name, found } => {
                write!(f, "the base model has {found}, but no {name:?}")
            }
            Self::Misfit { name, why } => {
                write!(f, "tensor {name:?} of the update does not fit the base model: {why}")
            }
            Self::NotFinite { name } => write!(
                f,
                "tensor {name:?} of the update has a number that is not finite in the model's type"
            ),
            Self::NoSamples => f.write_str("an update from 0 samples counts for nothing"),
            Self::Variates { path, found, wanted } => {
                write!(f, "{path} has {found}, but the base model has {wanted}")
            }
            Self::Encode { source } => write!(f, "cannot write the update as JSON: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Encode { source } => Some(source),
            Self::MissingVar { .. }
            | Self::Hyperparams { .. }
            | Self::Hyperparam { .. }
            | Self::NoData { .. }
            | Self::Row { .. }
            | Self::BaseModel { .. }
            | Self::NoTensor { .. }
            | Self::Misfit { .. }
            | Self::NotFinite { .. }
            | Self::Variates { .. }
            | Self::NoSamples => None,
        }
    }
}
