//! What one aggregation is given, and the checks that it has to pass.

use crate::{AggregateError, Element, Facts, NUM_SAMPLES_MAX, Rows, rows::Chosen};

/// The updates of one round, and what goes with them.
#[derive(Clone, Copy)]
pub struct Round<'a, T> {
    pub updates: &'a dyn Rows<T>,
    /// Of each update.
    pub facts: &'a [Facts],
    /// One row: the model that the round started from. Strategies that step from it need it.
    pub base: Option<&'a dyn Rows<T>>,
    /// Where updates started from other models than `base`: of each update, that model.
    pub bases: Option<&'a dyn Rows<T>>,
    /// Of each update, what it adds to the control variate (SCAFFOLD).
    pub controls: Option<&'a dyn Rows<T>>,
    /// What the step left of the last round, in the order of its vectors; nothing in the first.
    pub state: Option<&'a dyn Rows<T>>,
}

impl<'a, T: Element> Round<'a, T> {
    pub fn new(updates: &'a dyn Rows<T>, facts: &'a [Facts]) -> Self {
        Self { updates, facts, base: None, bases: None, controls: None, state: None }
    }

    /// Elements of each update.
    pub fn width(&self) -> usize {
        self.updates.width()
    }

    /// Of these updates alone, in their order; `facts` are theirs.
    pub(crate) fn with_chosen<R>(
        &self,
        chosen: &[usize],
        facts: &[Facts],
        then: impl FnOnce(&Round<'_, T>) -> R,
    ) -> R {
        let updates = Chosen { rows: self.updates, chosen };
        let bases = self.bases.map(|rows| Chosen { rows, chosen });
        let controls = self.controls.map(|rows| Chosen { rows, chosen });
        then(&Round {
            updates: &updates,
            facts,
            bases: bases.as_ref().map(|rows| rows as &dyn Rows<T>),
            controls: controls.as_ref().map(|rows| rows as &dyn Rows<T>),
            ..*self
        })
    }

    pub(crate) fn check(&self) -> Result<(), AggregateError> {
        let updates = self.updates.count();
        if updates == 0 {
            return Err(AggregateError::Empty);
        }
        check_count("facts", self.facts.len(), updates)?;
        check_samples(self.facts.iter().map(|facts| facts.num_samples))?;
        let per_update = [("bases", self.bases), ("controls", self.controls)];
        for (what, rows) in per_update {
            if let Some(rows) = rows {
                check_count(what, rows.count(), updates)?;
            }
        }
        if let Some(base) = self.base {
            check_count("base", base.count(), 1)?;
        }
        let expected = self.width();
        for rows in [self.base, self.bases, self.controls, self.state].into_iter().flatten() {
            let found = rows.width();
            if rows.count() > 0 && found != expected {
                return Err(AggregateError::Shape { index: updates, found, expected });
            }
        }
        Ok(())
    }
}

/// Every count is at least one and exact as an `f64`, and their sum fits 64 bits.
pub(crate) fn check_samples(
    counts: impl ExactSizeIterator<Item = u64>,
) -> Result<u64, AggregateError> {
    let updates = counts.len();
    let mut total = 0_u64;
    for (index, found) in counts.enumerate() {
        if found == 0 {
            return Err(AggregateError::ZeroSamples { index });
        }
        if found > NUM_SAMPLES_MAX {
            return Err(AggregateError::TooManySamples { index, found });
        }
        total = total.checked_add(found).ok_or(AggregateError::SamplesOverflow { updates })?;
    }
    Ok(total)
}

fn check_count(what: &'static str, found: usize, updates: usize) -> Result<(), AggregateError> {
    if found == updates {
        return Ok(());
    }
    Err(AggregateError::Facts { what, found, updates })
}

impl<T> std::fmt::Debug for Round<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a round of {} updates", self.facts.len())
    }
}
