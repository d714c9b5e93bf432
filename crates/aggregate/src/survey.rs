//! The answers to what a strategy asks about the updates.

use std::{cmp::Ordering, ops::Range};

use crate::{
    AggregateError, Center, Distances, Element, Facts, Round, Rows, RunError, Survey, Work,
    distance::{FromCenter, Pairs, pairs},
    linear::{Broken, Combination, Prepared, Sums},
    network::LANES,
    ordered::Ordered,
    rows::Chosen,
    work::{Buffers, CHUNK, sum_segments},
};

/// Coordinates that are compared at once when ties are broken.
const TIE_STRIP: usize = 16 * CHUNK;

pub(crate) struct Surveyor<'a, T> {
    pub(crate) round: Round<'a, T>,
    pub(crate) work: Work,
}

impl<T: Element> Survey for Surveyor<'_, T> {
    fn facts(&self) -> &[Facts] {
        self.round.facts
    }

    fn need_controls(&self) -> Result<(), RunError> {
        match self.round.controls {
            Some(_) => Ok(()),
            None => Err(AggregateError::Needs { what: "a control row of every update" }.into()),
        }
    }

    fn first_of(&self, tied: &[usize]) -> Result<usize, RunError> {
        let mut tied = tied.to_vec();
        let width = self.round.width();
        let mut start = 0;
        while tied.len() > 1 && start < width {
            let range = start..(start + TIE_STRIP).min(width);
            let rows = Chosen { rows: self.round.updates, chosen: &tied };
            let mut buffers = Buffers::new(tied.len());
            let views = buffers.read(&rows, &range).map_err(|error| at_update(error, &tied))?;
            let least = views.iter().copied().min_by(|a, b| in_order(a, b)).expect("some are tied");
            let equal = |view: &&[T]| in_order(view, least) == Ordering::Equal;
            let kept = tied.iter().zip(&views).filter(|(_, view)| equal(view));
            tied = kept.map(|(update, _)| *update).collect();
            start = range.end;
        }
        Ok(tied[0])
    }

    fn distances(&self) -> Result<Distances, RunError> {
        let rows = self.round.updates;
        let (count, width) = (rows.count(), rows.width());
        let scratch = || Buffers::new(count);
        let squared =
            sum_segments(&self.work, width, pairs(count), scratch, |range, sums, buffers| {
                let rows = &buffers.read(rows, &range)?;
                Pairs { rows, sums }.add().map_err(refused)
            })?;
        Ok(Distances { squared })
    }

    fn distances_from(&self, center: &Center) -> Result<Vec<f64>, RunError> {
        let rows = self.round.updates;
        let (count, width) = (rows.count(), rows.width());
        let maker = Maker::new(center, &self.round)?;
        let scratch = || (Buffers::new(count), maker.scratch(), vec![]);
        sum_segments(
            &self.work,
            width,
            count,
            scratch,
            |range, sums, (buffers, scratch, center)| {
                center.resize(range.len(), T::ZERO);
                maker.block(&range, center, scratch)?;
                let rows = &buffers.read(rows, &range)?;
                FromCenter { rows, center, sums }.add().map_err(refused)
            },
        )
    }
}

/// Makes the blocks of a center.
pub(crate) struct Maker<'a, T> {
    round: &'a Round<'a, T>,
    members: Vec<usize>,
    way: Way,
}

enum Way {
    Sum(Combination),
    Order(Ordered),
    Base,
}

/// What a thread needs for it.
pub(crate) struct Scratch<T> {
    buffers: Buffers<T>,
    sums: Sums,
    strip: Vec<[T; LANES]>,
}

impl<'a, T: Element> Maker<'a, T> {
    pub(crate) fn new(center: &Center, round: &'a Round<'a, T>) -> Result<Self, RunError> {
        let members = center.members(round.facts.len());
        let way = match (center, center.pick()) {
            (Center::Mean(weights), _) => {
                let weights: Vec<u64> = members.iter().map(|update| weights[*update]).collect();
                Way::Sum(Combination::mean(&weights)?)
            }
            (_, Some(pick)) => Way::Order(Ordered::new(members.len(), pick)),
            (_, None) if round.base.is_none() => return Err(needs_base()),
            (_, None) => Way::Base,
        };
        Ok(Self { round, members, way })
    }

    pub(crate) fn scratch(&self) -> Scratch<T> {
        let rows = self.members.len().max(1);
        Scratch { buffers: Buffers::new(rows), sums: Sums::default(), strip: vec![] }
    }

    /// The center's block of a range.
    pub(crate) fn block(
        &self,
        range: &Range<usize>,
        out: &mut [T],
        scratch: &mut Scratch<T>,
    ) -> Result<(), RunError> {
        let chosen = Chosen { rows: self.round.updates, chosen: &self.members };
        let rows: &dyn Rows<T> = match (&self.way, self.round.base) {
            (Way::Base, Some(base)) => base,
            (Way::Base | Way::Sum(_) | Way::Order(_), _) => &chosen,
        };
        let views = scratch.buffers.read(rows, range);
        let views = views.map_err(|error| at_update(error, &self.members))?;
        let done = match &self.way {
            Way::Sum(sum) => Prepared::new::<T>(sum).block(&views, out, &mut scratch.sums),
            Way::Order(ordered) => ordered.block(&views, out, &mut scratch.strip),
            Way::Base => {
                out.copy_from_slice(views[0]);
                Ok(())
            }
        };
        done.map_err(|broken| AggregateError::NotFinite { index: self.members[broken.row] }.into())
    }
}

pub(crate) fn needs_base() -> RunError {
    AggregateError::Needs { what: "the base model" }.into()
}

fn refused(broken: Broken) -> RunError {
    AggregateError::NotFinite { index: broken.row }.into()
}

/// The error, with the place among all updates of what is a row among the chosen.
fn at_update(error: RunError, chosen: &[usize]) -> RunError {
    let update = |row: usize| chosen.get(row).copied().unwrap_or(row);
    match error {
        RunError::Read { row, source } => RunError::Read { row: update(row), source },
        RunError::Refused(AggregateError::Shape { index, found, expected }) => {
            AggregateError::Shape { index: update(index), found, expected }.into()
        }
        RunError::Refused(_) | RunError::Write { .. } => error,
    }
}

fn in_order<T: Element>(a: &[T], b: &[T]) -> Ordering {
    let compare = |(a, b): (&T, &T)| a.to_f64().total_cmp(&b.to_f64());
    a.iter().zip(b).map(compare).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}
