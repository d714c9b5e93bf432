//! Why a training step did not happen, with the value that was wrong.

use std::{error::Error, fmt};

use crate::{Kind, data::HELD_OUT_FILE};

/// Everything that can end a training step; the text goes to the task's log and its result.
#[derive(Debug)]
pub enum TrainError {
    /// What was given cannot be read, or what was made cannot be written.
    Guest(guest::Error),
    Hyperparam {
        key: &'static str,
        value: String,
        takes: &'static str,
    },
    NoData {
        dir: String,
    },
    NothingHeldOut {
        rows: usize,
        holdout: f64,
    },
    Purpose {
        value: String,
    },
    Row {
        file: String,
        line: usize,
        why: String,
    },
    BaseMisfit {
        kind: Kind,
        features: usize,
        found: String,
    },
    Size {
        kind: Kind,
        features: usize,
        classes: usize,
    },
    Diverged {
        what: &'static str,
        lr: f64,
    },
}

impl fmt::Display for TrainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest(why) => why.fmt(f),
            Self::Hyperparam { key, value, takes } => {
                write!(f, "hyperparam {key:?} takes {takes}, not {value}")
            }
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
            Self::BaseMisfit { kind, features, found } => write!(
                f,
                "the base model has {found}, but {kind} on data with {features} features needs {}",
                kind.shapes()
            ),
            Self::Size { kind, features, classes } => write!(
                f,
                "{kind} cannot have {features} features and {classes} classes: it takes {}, and {}",
                kind.features_taken(),
                kind.classes_taken()
            ),
            Self::Diverged { what, lr } => {
                write!(f, "training diverged: {what} is not finite; lower lr (now {lr})")
            }
        }
    }
}

impl From<guest::Error> for TrainError {
    fn from(why: guest::Error) -> Self {
        Self::Guest(why)
    }
}

impl Error for TrainError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Guest(why) => why.source(),
            Self::Hyperparam { .. }
            | Self::NoData { .. }
            | Self::NothingHeldOut { .. }
            | Self::Purpose { .. }
            | Self::Row { .. }
            | Self::BaseMisfit { .. }
            | Self::Size { .. }
            | Self::Diverged { .. } => None,
        }
    }
}
