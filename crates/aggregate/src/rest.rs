//! Going on without the updates that alone keep the others from a result.
//!
//! One update that says what cannot be used, or that pulls the model out of the range of its
//! numbers, must not end a round that others took part in. Which are left out depends on the set
//! of the updates alone.

use crate::{
    AggregateError, Center, Element, Facts, Round, RunError, Survey as _, Work, survey::Surveyor,
};

/// Updates that are left out because the model leaves the range of its numbers, before it is the
/// state of the last round that is left out.
const FARTHEST_MAX: usize = 8;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest<M> {
    pub made: M,
    /// The updates that it is made of, and those left out; places among the updates given.
    pub kept: Vec<usize>,
    pub unusable: Vec<usize>,
}

/// Calls `attempt` with the round, and again with what is left of it as long as one update is what
/// is in the way.
pub fn aggregate_rest<T: Element, M>(
    round: &Round<'_, T>,
    work: &Work,
    mut attempt: impl FnMut(&Round<'_, T>) -> Result<M, RunError>,
) -> Result<Rest<M>, RunError> {
    let mut kept: Vec<usize> = (0..round.facts.len()).collect();
    let mut unusable = vec![];
    let mut farthest = 0;
    let mut state = round.state;
    loop {
        let rest = Part { round, kept: &kept };
        let error = match rest.with(|part| attempt(&Round { state, ..*part })) {
            Ok(made) => return Ok(Rest { made, kept, unusable }),
            Err(error) => error,
        };
        let place = match &error {
            RunError::Refused(
                AggregateError::NotFinite { index } | AggregateError::Fact { index, .. },
            ) => Some(*index),
            RunError::Refused(AggregateError::ResultNotFinite { .. }) => {
                farthest += 1;
                if farthest > FARTHEST_MAX || kept.len() == 1 {
                    None
                } else {
                    Some(rest.with(|part| farthest_of(part, work))?)
                }
            }
            RunError::Refused(_) | RunError::Read { .. } | RunError::Write { .. } => {
                return Err(error);
            }
        };
        match place.filter(|place| *place < kept.len()) {
            Some(place) if kept.len() > 1 => unusable.push(kept.remove(place)),
            Some(_) => return Err(error),
            // It is what earlier rounds left that is too much.
            None if state.is_some() => {
                state = None;
                farthest = 0;
                kept = (0..round.facts.len()).collect();
                unusable.clear();
            }
            None => return Err(error),
        }
    }
}

/// Some of the updates of a round.
struct Part<'a, 'r, T> {
    round: &'a Round<'r, T>,
    kept: &'a [usize],
}

impl<T: Element> Part<'_, '_, T> {
    fn with<R>(&self, then: impl FnOnce(&Round<'_, T>) -> R) -> R {
        let (round, chosen) = (self.round, self.kept);
        let facts: Vec<Facts> = chosen.iter().map(|it| round.facts[*it].clone()).collect();
        round.with_chosen(chosen, &facts, then)
    }
}

/// The update that is farthest from the base model, or from the others' median where there is none.
fn farthest_of<T: Element>(round: &Round<'_, T>, work: &Work) -> Result<usize, RunError> {
    let surveyor = Surveyor { round: *round, work: *work };
    let center = if round.base.is_some() { Center::Base } else { Center::Median };
    let squared = surveyor.distances_from(&center)?;
    let most = squared.iter().copied().fold(0.0, f64::max);
    let tied: Vec<usize> = (0..squared.len()).filter(|it| squared[*it] == most).collect();
    if tied.is_empty() { Ok(0) } else { surveyor.first_of(&tied) }
}
