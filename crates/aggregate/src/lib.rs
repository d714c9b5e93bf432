//! Turning many updates into one model: numbers in, numbers out.
//!
//! It refuses to know rounds, names, shapes and files: an update is a flat slice and a number of
//! samples. The answer depends on the set of updates alone, bit by bit, never on their order.
//!
//! To add a strategy: write `strategy/<name>.rs`, add one line to [`STRATEGIES`]. The conformance
//! test runs over the list, so the new strategy is tested the moment it is listed.

mod exact;
mod strategy;

pub use strategy::{STRATEGIES, Strategy, find};

/// The most samples one update may claim: up to here every count is exact as an `f64`.
pub const NUM_SAMPLES_MAX: u64 = 1 << 53;

/// One client's contribution.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    pub weights: &'a [f64],
    pub num_samples: u64,
}

/// Why there is no answer; `index` is the update's place in the slice given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AggregateError {
    #[error("nothing to aggregate")]
    Empty,
    #[error("update {index} has {found} weights, expected {expected}")]
    Shape { index: usize, found: usize, expected: usize },
    #[error("update {index} holds a weight that is not finite")]
    NotFinite { index: usize },
    #[error("update {index} claims zero samples")]
    ZeroSamples { index: usize },
    #[error("update {index} claims {found} samples, more than {NUM_SAMPLES_MAX}")]
    TooManySamples { index: usize, found: u64 },
    #[error("the samples of all {updates} updates together do not fit 64 bits")]
    SamplesOverflow { updates: usize },
    #[error("weight {coordinate} of the result is not finite")]
    ResultNotFinite { coordinate: usize },
}

/// Updates that were checked: at least one, all of one length, all finite, all with samples.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    updates: &'a [Update<'a>],
    total_samples: u64,
}

/// How a batch becomes one vector of weights, of the same length.
///
/// The contract, which the conformance test holds every strategy in the list to: the result does
/// not depend on the order of the updates; equal updates give themselves; no weight leaves the
/// range that the updates span in its place.
pub trait Aggregator {
    fn aggregate(&self, batch: &Batch<'_>) -> Vec<f64>;
}

/// Checks the updates, aggregates them, and checks the result.
pub fn run(
    aggregator: &dyn Aggregator,
    updates: &[Update<'_>],
) -> Result<Vec<f64>, AggregateError> {
    let batch = Batch::check(updates)?;
    let weights = aggregator.aggregate(&batch);
    assert_eq!(weights.len(), batch.len(), "a strategy keeps the number of weights");
    match weights.iter().position(|weight| !weight.is_finite()) {
        Some(coordinate) => Err(AggregateError::ResultNotFinite { coordinate }),
        None => Ok(weights),
    }
}

impl<'a> Batch<'a> {
    pub fn check(updates: &'a [Update<'a>]) -> Result<Self, AggregateError> {
        let expected = updates.first().ok_or(AggregateError::Empty)?.weights.len();
        let mut total_samples = 0_u64;
        for (index, update) in updates.iter().enumerate() {
            let found = update.weights.len();
            if found != expected {
                return Err(AggregateError::Shape { index, found, expected });
            }
            if update.num_samples == 0 {
                return Err(AggregateError::ZeroSamples { index });
            }
            if update.num_samples > NUM_SAMPLES_MAX {
                return Err(AggregateError::TooManySamples { index, found: update.num_samples });
            }
            if !update.weights.iter().all(|weight| weight.is_finite()) {
                return Err(AggregateError::NotFinite { index });
            }
            total_samples = total_samples
                .checked_add(update.num_samples)
                .ok_or(AggregateError::SamplesOverflow { updates: updates.len() })?;
        }
        Ok(Self { updates, total_samples })
    }

    pub fn updates(&self) -> &'a [Update<'a>] {
        self.updates
    }

    pub fn total_samples(&self) -> u64 {
        self.total_samples
    }

    /// Weights in each update.
    pub fn len(&self) -> usize {
        self.updates[0].weights.len()
    }

    /// Whether the updates have no weights; there is always an update.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
