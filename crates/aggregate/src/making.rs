//! Carrying a recipe out, block by block: the one way from updates to a new model.

use std::ops::Range;

use crate::{
    AggregateError, Aggregator, Center, Element, Guard, Guarded, Out, Recipe, Round, Rows,
    RunError, Step, Strip, Work,
    linear::{Combination, Prepared, Sums},
    rows::Chosen,
    survey::{Maker, Scratch, Surveyor, needs_base},
    work::{Buffers, each_block},
};

/// Checks the round, asks the strategy for its recipe, and writes the new model, and the state
/// after it, to where they should go. Tells which updates the guard turned away or shortened.
pub fn aggregate<T: Element>(
    aggregator: &dyn Aggregator,
    guard: &Guard,
    round: &Round<'_, T>,
    work: &Work,
    out: Out<'_, T>,
) -> Result<Guarded, RunError> {
    guard.stand_before(round, work, |round| {
        let recipe = aggregator.recipe(&Surveyor { round: *round, work: *work })?;
        make(&recipe, round, work, out)
    })
}

/// The result of [`aggregate_in_memory`].
#[derive(Clone, Debug, PartialEq)]
pub struct Made<T> {
    pub weights: Vec<T>,
    /// The vectors that the next round is to be given as its state, with their names.
    pub state: Vec<(&'static str, Vec<T>)>,
    pub guarded: Guarded,
}

/// [`aggregate`] into vectors.
pub fn aggregate_in_memory<T: Element>(
    aggregator: &dyn Aggregator,
    guard: &Guard,
    round: &Round<'_, T>,
    work: &Work,
) -> Result<Made<T>, RunError> {
    let mut weights = vec![];
    let mut state: Vec<(&'static str, Vec<T>)> = vec![];
    let guarded = guard.stand_before(round, work, |round| {
        let recipe = aggregator.recipe(&Surveyor { round: *round, work: *work })?;
        let names = recipe.step.as_ref().map_or(&[][..], |step| step.vectors());
        weights = vec![T::ZERO; round.width()];
        state = names.iter().map(|name| (*name, vec![T::ZERO; round.width()])).collect();
        let mut slices = vec![&mut weights[..]];
        slices.extend(state.iter_mut().map(|(_, vector)| &mut vector[..]));
        make(&recipe, round, work, Out::Slices(slices))
    })?;
    Ok(Made { weights, state, guarded })
}

fn make<T: Element>(
    recipe: &Recipe,
    round: &Round<'_, T>,
    work: &Work,
    out: Out<'_, T>,
) -> Result<(), RunError> {
    let vectors = 1 + recipe.step.as_ref().map_or(0, |step| step.vectors().len());
    out.check(vectors, round.width())?;
    if let Some(step) = &recipe.step {
        return Stepping::new(&recipe.center, &**step, round)?.make(work, out);
    }
    let maker = Maker::new(&recipe.center, round)?;
    each_block(
        work,
        round.width(),
        out,
        || maker.scratch(),
        |range, out, scratch| {
            maker.block(&range, out[0], scratch)?;
            check_finite(out[0], range.start)
        },
    )
}

fn check_finite<T: Element>(values: &[T], start: usize) -> Result<(), RunError> {
    // Without an early end, so that the compiler makes vectors of it.
    if values.iter().fold(true, |all, value| all & value.finite()) {
        return Ok(());
    }
    let at = values.iter().position(|value| !value.finite()).expect("one is not finite");
    Err(AggregateError::ResultNotFinite { coordinate: start + at }.into())
}

/// A recipe with a step: the difference from the base, then what the server does with it.
struct Stepping<'a, T> {
    round: &'a Round<'a, T>,
    base: &'a dyn Rows<T>,
    step: &'a dyn Step,
    difference: Difference<'a, T>,
    control: Option<(&'a dyn Rows<T>, Combination)>,
}

/// How the difference of the center from the base is found.
enum Difference<'a, T> {
    /// `sum(n_i * (w_i - base_i)) / sum(n_i)`, exactly, rounded once.
    Exact { members: Vec<usize>, combination: Combination },
    /// The center, rounded, minus the base.
    Rounded(Maker<'a, T>),
}

struct Desk<T> {
    updates: Buffers<T>,
    base: Buffers<T>,
    bases: Buffers<T>,
    controls: Buffers<T>,
    state: Buffers<T>,
    center: Option<Scratch<T>>,
    sums: Sums,
    narrow: Vec<T>,
    model: Vec<f64>,
    delta: Vec<f64>,
    control: Vec<f64>,
    vectors: Vec<Vec<f64>>,
}

impl<'a, T: Element> Stepping<'a, T> {
    fn new(center: &Center, step: &'a dyn Step, round: &'a Round<'a, T>) -> Result<Self, RunError> {
        let base = round.base.ok_or_else(needs_base)?;
        let (found, updates) = (round.state.map_or(0, Rows::count), step.vectors().len());
        if round.state.is_some() && found != updates {
            return Err(
                AggregateError::Needs { what: "as many vectors of state as it left" }.into()
            );
        }
        let difference = match center {
            Center::Mean(weights) => {
                exact_difference(weights, center.members(weights.len()), round)?
            }
            Center::Median | Center::Trimmed { .. } | Center::NearMedian { .. } | Center::Base => {
                Difference::Rounded(Maker::new(center, round)?)
            }
        };
        let equal = vec![1; round.facts.len()];
        let control = match round.controls {
            Some(rows) => Some((rows, Combination::mean(&equal)?)),
            None => None,
        };
        Ok(Self { round, base, step, difference, control })
    }

    fn desk(&self) -> Desk<T> {
        let count = self.round.facts.len();
        let (members, center) = match &self.difference {
            Difference::Exact { members, .. } => (members.len(), None),
            Difference::Rounded(maker) => (0, Some(maker.scratch())),
        };
        Desk {
            updates: Buffers::new(members),
            base: Buffers::new(1),
            bases: Buffers::new(members),
            controls: Buffers::new(count),
            state: Buffers::new(self.step.vectors().len()),
            center,
            sums: Sums::default(),
            narrow: vec![],
            model: vec![],
            delta: vec![],
            control: vec![],
            vectors: vec![vec![]; self.step.vectors().len()],
        }
    }

    fn make(&self, work: &Work, out: Out<'_, T>) -> Result<(), RunError> {
        each_block(
            work,
            self.round.width(),
            out,
            || self.desk(),
            |range, out, desk| self.block(&range, out, desk),
        )
    }

    fn block(
        &self,
        range: &Range<usize>,
        out: &mut [&mut [T]],
        desk: &mut Desk<T>,
    ) -> Result<(), RunError> {
        desk.narrow.resize(range.len(), T::ZERO);
        let base = desk.base.read(self.base, range)?[0];
        widen(base, &mut desk.model);
        match &self.difference {
            Difference::Exact { members, combination } => {
                let chosen = Chosen { rows: self.round.updates, chosen: members };
                let mut rows = desk.updates.read(&chosen, range)?;
                let bases = self.round.bases.map(|rows| Chosen { rows, chosen: members });
                match &bases {
                    Some(bases) => rows.extend(desk.bases.read(bases, range)?),
                    None => rows.push(base),
                }
                combine(combination, members, &rows, &mut desk.narrow, &mut desk.sums)?;
                widen(&desk.narrow, &mut desk.delta);
            }
            Difference::Rounded(maker) => {
                let scratch = desk.center.get_or_insert_with(|| maker.scratch());
                maker.block(range, &mut desk.narrow, scratch)?;
                widen(&desk.narrow, &mut desk.delta);
                desk.delta.iter_mut().zip(&desk.model).for_each(|(delta, x)| *delta -= x);
            }
        }
        self.read_control(range, desk)?;
        self.read_state(range, desk)?;
        let Desk { model, delta, control, vectors, .. } = desk;
        self.step.apply(Strip { model, delta, control, state: vectors });
        let (made, after) = out.split_first_mut().expect("the model goes somewhere");
        made.iter_mut().zip(model).for_each(|(out, value)| *out = T::from_f64(*value));
        check_finite(made, range.start)?;
        // A moment beyond the element type stays at its end: one round of enormous updates is no
        // reason to fail those after it.
        for (out, values) in after.iter_mut().zip(vectors) {
            out.iter_mut().zip(values).for_each(|(out, value)| *out = T::saturated(*value));
            check_finite(out, range.start)?;
        }
        Ok(())
    }

    fn read_control(&self, range: &Range<usize>, desk: &mut Desk<T>) -> Result<(), RunError> {
        desk.control.clear();
        desk.control.resize(range.len(), 0.0);
        if let Some((rows, mean)) = &self.control {
            let views = desk.controls.read(*rows, range)?;
            let all: Vec<usize> = (0..views.len()).collect();
            combine(mean, &all, &views, &mut desk.narrow, &mut desk.sums)?;
            widen(&desk.narrow, &mut desk.control);
        }
        Ok(())
    }

    fn read_state(&self, range: &Range<usize>, desk: &mut Desk<T>) -> Result<(), RunError> {
        let views = match self.round.state {
            Some(state) => Some(desk.state.read(state, range)?),
            None => None,
        };
        for (index, vector) in desk.vectors.iter_mut().enumerate() {
            match &views {
                Some(views) => widen(views[index], vector),
                None => {
                    vector.clear();
                    vector.resize(range.len(), self.step.initial(index));
                }
            }
        }
        Ok(())
    }
}

fn exact_difference<'a, T: Element>(
    weights: &[u64],
    members: Vec<usize>,
    round: &Round<'_, T>,
) -> Result<Difference<'a, T>, RunError> {
    let weights: Vec<u64> = members.iter().map(|update| weights[*update]).collect();
    let mut combination = Combination::mean(&weights)?;
    if round.bases.is_some() {
        let taken: Vec<i128> = combination.weights.iter().map(|weight| -weight).collect();
        combination.weights.extend(taken);
    } else {
        combination.weights.push(-i128::from(combination.total));
    }
    Ok(Difference::Exact { members, combination })
}

fn combine<T: Element>(
    combination: &Combination,
    members: &[usize],
    rows: &[&[T]],
    out: &mut [T],
    sums: &mut Sums,
) -> Result<(), RunError> {
    Prepared::new::<T>(combination).block(rows, out, sums).map_err(|broken| {
        match members.get(broken.row) {
            Some(update) => AggregateError::NotFinite { index: *update }.into(),
            None => AggregateError::Needs { what: "a base model that is finite" }.into(),
        }
    })
}

fn widen<T: Element>(values: &[T], out: &mut Vec<f64>) {
    out.clear();
    out.extend(values.iter().map(|value| value.to_f64()));
}
