//! Why there is no answer.

use std::io;

use crate::{NUM_SAMPLES_MAX, SettingError};

/// What is wrong with what was given; `index` is the update's place among those given.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AggregateError {
    #[error("nothing to aggregate")]
    Empty,
    #[error("update {index} has {found} weights, expected {expected}")]
    Shape { index: usize, found: usize, expected: usize },
    #[error("update {index} holds a weight that is not finite")]
    NotFinite { index: usize },
    #[error("an update holds {found}, a magnitude above {max}")]
    TooLarge { found: f64, max: f64 },
    #[error("update {index} claims zero samples")]
    ZeroSamples { index: usize },
    #[error("update {index} claims {found} samples, more than {NUM_SAMPLES_MAX}")]
    TooManySamples { index: usize, found: u64 },
    #[error("the samples of all {updates} updates together do not fit 64 bits")]
    SamplesOverflow { updates: usize },
    #[error("weight {coordinate} of the result is not finite")]
    ResultNotFinite { coordinate: usize },
    #[error("there is room for {found} vectors of the result, which has {expected}")]
    Outputs { found: usize, expected: usize },
    #[error("there is room for {found} weights of the result, which has {expected}")]
    OutputWidth { found: usize, expected: usize },
    #[error("there is {found} of {what} for {updates} updates")]
    Facts { what: &'static str, found: usize, updates: usize },
    #[error("the strategy needs {what}, which was not given")]
    Needs { what: &'static str },
    #[error("update {index} says {what} = {found}, which is not a usable number")]
    Fact { index: usize, what: &'static str, found: String },
    #[error(transparent)]
    Setting(#[from] SettingError),
}

/// Why an aggregation ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Refused(#[from] AggregateError),
    #[error("cannot read row {row}")]
    Read { row: usize, source: io::Error },
    #[error("cannot write vector {vector} of the result")]
    Write { vector: usize, source: io::Error },
}
