//! The short way for small models in memory: updates in, weights out, everything by default.

use crate::{
    AggregateError, Aggregator, Facts, Guard, Round, RunError, Slices, Work, aggregate_in_memory,
    round::check_samples,
};

/// One client's contribution.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    pub weights: &'a [f64],
    pub num_samples: u64,
}

/// Updates that were checked: at least one, all of one length, all finite, all with samples.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    updates: &'a [Update<'a>],
    total_samples: u64,
}

/// Checks the updates, aggregates them, and checks the result. A strategy that steps from a base
/// model refuses: it is given none here.
pub fn run(
    aggregator: &dyn Aggregator,
    updates: &[Update<'_>],
) -> Result<Vec<f64>, AggregateError> {
    let batch = Batch::check(updates)?;
    let rows: Vec<&[f64]> = batch.updates().iter().map(|update| update.weights).collect();
    let facts: Vec<Facts> =
        batch.updates().iter().map(|update| Facts::new(update.num_samples)).collect();
    let rows = Slices::new(&rows)?;
    let round = Round::new(&rows, &facts);
    match aggregate_in_memory(aggregator, &Guard::default(), &round, &Work::default()) {
        Ok(made) => Ok(made.weights),
        Err(RunError::Refused(error)) => Err(error),
        Err(error @ (RunError::Read { .. } | RunError::Write { .. })) => {
            unreachable!("slices are read and written without failure: {error}")
        }
    }
}

impl<'a> Batch<'a> {
    pub fn check(updates: &'a [Update<'a>]) -> Result<Self, AggregateError> {
        let expected = updates.first().ok_or(AggregateError::Empty)?.weights.len();
        for (index, update) in updates.iter().enumerate() {
            let found = update.weights.len();
            if found != expected {
                return Err(AggregateError::Shape { index, found, expected });
            }
            if !update.weights.iter().all(|weight| weight.is_finite()) {
                return Err(AggregateError::NotFinite { index });
            }
        }
        let total_samples = check_samples(updates.iter().map(|update| update.num_samples))?;
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
