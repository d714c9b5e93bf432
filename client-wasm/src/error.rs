//! Why a training step did not happen, with the value that was wrong.

use std::{error::Error, fmt, io};

use crate::{Kind, data::HELD_OUT_FILE};

/// Everything that can end a training step; the text goes to the task's log and its result.
#[derive(Debug)]
pub enum TrainError {
    MissingVar { name: &'static str },
    Hyperparams { why: String },
    Hyperparam { key: &'static str, value: String, takes: &'static str },
    Read { path: String, source: io::Error },
    NoData { dir: String },
    NothingHeldOut { rows: usize, holdout: f64 },
    Purpose { value: String },
    Row { file: String, line: usize, why: String },
    BaseModel { why: String },
    BaseMisfit { kind: Kind, features: usize, found: String },
    Size { kind: Kind, features: usize, classes: usize },
    Diverged { what: &'static str, lr: f64 },
    Encode { source: serde_json::Error },
}

impl fmt::Display for TrainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingVar { name } => write!(f, "the environment has no variable {name}"),
            Self::Hyperparams { why } => write!(f, "hyperparams are not a JSON object: {why}"),
            Self::Hyperparam { key, value, takes } => {
                write!(f, "hyperparam {key:?} takes {takes}, not {value}")
            }
            Self::Read { path, source } => write!(f, "cannot read {path}: {source}"),
            Self::NoData { dir } => write!(f, "no rows to train on in the *.csv files of {dir}"),
            Self::NothingHeldOut { rows, holdout } => write!(
                f,
                "nothing to evaluate on: a share of {holdout} of {rows} rows is none, and there is \
                 no file {HELD_OUT_FILE}"
            ),
            Self::Purpose { value } => {
                write!(f, "PURPOSE takes \"train\" or \"evaluate\", not {value:?}")
            }
            Self::Row { file, line, why } => write!(f, "{file}, line {line}: {why}"),
            Self::BaseModel { why } => write!(f, "the base model is not usable: {why}"),
            Self::BaseMisfit { kind, features, found } => write!(
                f,
                "the base model has {found}, but {kind} on data with {features} features needs {}",
                kind.shapes()
            ),
            Self::Size { kind, features, classes } => write!(
                f,
                "{kind} cannot have {features} features and {classes} classes: it takes at least \
                 1 feature, and {}",
                kind.classes_taken()
            ),
            Self::Diverged { what, lr } => {
                write!(f, "training diverged: {what} is not finite; lower lr (now {lr})")
            }
            Self::Encode { source } => write!(f, "cannot write the update as JSON: {source}"),
        }
    }
}

impl Error for TrainError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Encode { source } => Some(source),
            Self::MissingVar { .. }
            | Self::Hyperparams { .. }
            | Self::Hyperparam { .. }
            | Self::NoData { .. }
            | Self::NothingHeldOut { .. }
            | Self::Purpose { .. }
            | Self::Row { .. }
            | Self::BaseModel { .. }
            | Self::BaseMisfit { .. }
            | Self::Size { .. }
            | Self::Diverged { .. } => None,
        }
    }
}
