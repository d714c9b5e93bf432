//! What stands in front of any strategy: bounds on how far, and on how much, one update may pull.

use std::{io, ops::Range};

use crate::{
    AggregateError, Center, Element, Facts, Round, Rows, RunError, Survey, Work,
    rows::{Remade, Row},
    survey::Surveyor,
};

/// The bounds. The default lets everything through.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Guard {
    pub norm: NormBound,
    /// The greatest share of all samples that one update may count for, above 0, below 1.
    pub share_max: Option<f64>,
}

/// What is done with an update whose distance from the base model is above a bound (Sun et al.,
/// "Can you really backdoor federated learning?", 2019, section 4).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum NormBound {
    #[default]
    Off,
    /// It is drawn towards the base until it is that near: `base + (w - base) * min(1, max / norm)`.
    Clip { norm_max: f64 },
    /// It is left out.
    Reject { norm_max: f64 },
}

/// What the guard did; places among the updates given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guarded {
    pub clipped: Vec<usize>,
    pub rejected: Vec<usize>,
    /// Updates that count for fewer samples than they claim.
    pub capped: Vec<usize>,
}

impl Guard {
    /// Checks the round, and runs `then` with what may pass.
    pub(crate) fn stand_before<T: Element>(
        &self,
        round: &Round<'_, T>,
        work: &Work,
        then: impl FnOnce(&Round<'_, T>) -> Result<(), RunError>,
    ) -> Result<Guarded, RunError> {
        round.check()?;
        self.check()?;
        let mut guarded = Guarded::default();
        let far = self.far(round, work)?;
        let passes = |update: &usize| match self.norm {
            NormBound::Reject { .. } => far[*update] <= 1.0,
            NormBound::Off | NormBound::Clip { .. } => true,
        };
        let (kept, rejected): (Vec<usize>, Vec<usize>) = (0..round.facts.len()).partition(passes);
        guarded.rejected = rejected;
        if kept.is_empty() {
            return Err(AggregateError::Empty.into());
        }
        let mut facts: Vec<Facts> = kept.iter().map(|it| round.facts[*it].clone()).collect();
        if let Some(share_max) = self.share_max {
            let capped = cap(&mut facts, share_max);
            guarded.capped = capped.into_iter().map(|it| kept[it]).collect();
        }
        let result = round.with_chosen(&kept, &facts, |passed| {
            let (NormBound::Clip { .. }, Some(base)) = (self.norm, round.base) else {
                return then(passed);
            };
            guarded.clipped = kept.iter().copied().filter(|it| far[*it] > 1.0).collect();
            // Whoever clips leaves nobody out: the distances go by the same places.
            let origin = Origin { base, bases: round.bases };
            let updates = clipped(passed.updates, origin, &far);
            then(&Round { updates: &updates, ..*passed })
        });
        result.map_err(|error| at_kept(error, &kept))?;
        Ok(guarded)
    }

    /// Each update's distance from the base, in bounds.
    fn far<T: Element>(&self, round: &Round<'_, T>, work: &Work) -> Result<Vec<f64>, RunError> {
        let norm_max = match self.norm {
            NormBound::Off => return Ok(vec![]),
            NormBound::Clip { norm_max } | NormBound::Reject { norm_max } => norm_max,
        };
        let moved = round
            .base
            .zip(round.bases)
            .map(|(base, bases)| moved(round.updates, Origin { base, bases: Some(bases) }));
        let updates = moved.as_ref().map_or(round.updates, |moved| moved as &dyn Rows<T>);
        let surveyor = Surveyor { round: Round { updates, ..*round }, work: *work };
        let squared = surveyor.distances_from(&Center::Base)?;
        Ok(squared.into_iter().map(|squared| squared.sqrt() / norm_max).collect())
    }

    fn check(&self) -> Result<(), AggregateError> {
        let bad = |what, found: f64| {
            AggregateError::Setting(crate::SettingError::OutOfRange {
                name: what,
                found,
                min: f64::MIN_POSITIVE,
                max: f64::MAX,
            })
        };
        match self.norm {
            NormBound::Clip { norm_max } | NormBound::Reject { norm_max }
                if !(f64::MIN_POSITIVE..=f64::MAX).contains(&norm_max) =>
            {
                Err(bad("norm_max", norm_max))
            }
            NormBound::Off | NormBound::Clip { .. } | NormBound::Reject { .. } => {
                match self.share_max {
                    Some(share) if !(share > 0.0 && share < 1.0) => Err(bad("share_max", share)),
                    Some(_) | None => Ok(()),
                }
            }
        }
    }
}

/// Lowers the samples of the greatest until none has more than its share of what then is the sum,
/// or all count the same.
fn cap(facts: &mut [Facts], share_max: f64) -> Vec<usize> {
    let mut counts: Vec<u64> = facts.iter().map(|facts| facts.num_samples).collect();
    counts.sort_unstable();
    let mut limit = counts[0];
    let mut rest = 0_u128;
    for (at, count) in counts.iter().enumerate() {
        rest += u128::from(*count);
        let above = (counts.len() - at - 1) as f64;
        let room = 1.0 - share_max * above;
        if room > 0.0 {
            // With this one and all below it whole, those above may have so many each.
            let each = share_max * rest as f64 / room;
            if each >= *count as f64 {
                limit = each as u64;
            }
        }
    }
    let limit = limit.max(1);
    let mut capped = vec![];
    for (index, facts) in facts.iter_mut().enumerate() {
        if facts.num_samples > limit {
            facts.num_samples = limit;
            capped.push(index);
        }
    }
    capped
}

/// The models that updates started from: all from one, or each from its own.
#[derive(Clone, Copy)]
struct Origin<'a, T> {
    base: &'a dyn Rows<T>,
    bases: Option<&'a dyn Rows<T>>,
}

impl<T: Element> Origin<'_, T> {
    fn read<'a>(
        &'a self,
        row: usize,
        range: Range<usize>,
        scratch: &'a mut Vec<T>,
    ) -> io::Result<&'a [T]> {
        match self.bases {
            Some(bases) => bases.read(row, range, scratch),
            None => self.base.read(0, range, scratch),
        }
    }
}

/// Updates as if all had started from the one base: what each adds to its own is added to that.
fn moved<'a, T: Element>(rows: &'a dyn Rows<T>, origin: Origin<'a, T>) -> impl Rows<T> {
    let make =
        move |row, range: Range<usize>, made: &mut Vec<T>| {
            let (mut own, mut common, mut raw) = (vec![], vec![], vec![]);
            let own = origin.read(row, range.clone(), &mut own)?;
            let common = origin.base.read(0, range.clone(), &mut common)?;
            let values = rows.read(row, range, &mut raw)?;
            made.clear();
            made.extend(values.iter().zip(own).zip(common).map(|((w, own), common)| {
                T::from_f64(common.to_f64() + (w.to_f64() - own.to_f64()))
            }));
            Ok(Row::Made)
        };
    Remade { rows, make }
}

/// Updates that are drawn towards the model that they started from, each by its own factor.
fn clipped<'a, T: Element>(
    rows: &'a dyn Rows<T>,
    origin: Origin<'a, T>,
    far: &'a [f64],
) -> impl Rows<T> {
    let make = move |row: usize, range: Range<usize>, made: &mut Vec<T>| {
        let far = far[row];
        if far <= 1.0 {
            return Ok(Row::AsItIs);
        }
        let (mut own, mut raw) = (vec![], vec![]);
        let base = origin.read(row, range.clone(), &mut own)?;
        let values = rows.read(row, range, &mut raw)?;
        made.clear();
        made.extend(base.iter().zip(values).map(|(x, w)| {
            let (x, w) = (x.to_f64(), w.to_f64());
            if w.is_finite() { T::from_f64(x + (w - x) / far) } else { T::from_f64(w) }
        }));
        Ok(Row::Made)
    };
    Remade { rows, make }
}

/// The error, with the place among all updates of what is a place among those kept.
fn at_kept(error: RunError, kept: &[usize]) -> RunError {
    let place = |index: usize| kept.get(index).copied().unwrap_or(index);
    match error {
        RunError::Read { row, source } => RunError::Read { row: place(row), source },
        RunError::Refused(AggregateError::NotFinite { index }) => {
            AggregateError::NotFinite { index: place(index) }.into()
        }
        RunError::Refused(AggregateError::Fact { index, what, found }) => {
            AggregateError::Fact { index: place(index), what, found }.into()
        }
        RunError::Refused(_) | RunError::Write { .. } => error,
    }
}
