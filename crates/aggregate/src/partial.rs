//! Sums of updates that are taken as they arrive, and put together in a tree of any shape.
//!
//! A partial sum is exact: of each coordinate it keeps `sum(n_i * w_i)` as a few `f64` whose sum it
//! is (an expansion in the sense of Shewchuk, "Adaptive precision floating-point arithmetic",
//! 1997). Mostly that is one `f64`, as products of an `f32` leave it room; what does not fit goes
//! to further planes, which are kept sparse while few need them. So memory is eight bytes a
//! coordinate and a little more, however many updates there are, and the result is to the bit that
//! of all updates at once, whatever the order and the tree.

mod bytes;
mod planes;

use std::marker::PhantomData;

use crate::{
    AggregateError, Element, NUM_SAMPLES_MAX, Out, Rows, RunError, Work, exact,
    linear::{Divisor, STRIP, Sums, cut},
    work::{each_block, each_part},
};
use planes::Planes;

pub use bytes::PartialError;

/// Strips that are read at once.
const STRIPS_READ: usize = 16;
/// Weights of a larger magnitude would let a sum overflow.
const MAGNITUDE_MAX: f64 = 1e270;

/// An exact weighted sum of updates.
#[derive(Clone, Debug)]
pub struct Partial<T> {
    width: usize,
    updates: u64,
    total: u64,
    strips: Vec<Planes>,
    element: PhantomData<T>,
}

impl<T: Element> Partial<T> {
    /// The sum of no updates, of so many weights each.
    pub fn new(width: usize) -> Self {
        let strip = |index: usize| Planes::new(STRIP.min(width - index * STRIP));
        let strips = (0..width.div_ceil(STRIP)).map(strip).collect();
        Self { width, updates: 0, total: 0, strips, element: PhantomData }
    }

    /// Weights in each update.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many updates are in it.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The samples of all of them.
    pub fn total_samples(&self) -> u64 {
        self.total
    }

    /// Bytes that the sums take in memory.
    pub fn bytes_held(&self) -> usize {
        self.strips.iter().map(Planes::bytes_held).sum()
    }

    /// Takes an update in: the only row of `update`. It is read twice, first to see that all of it
    /// is fit, so that a refused update leaves no trace.
    pub fn add(
        &mut self,
        update: &dyn Rows<T>,
        num_samples: u64,
        work: &Work,
    ) -> Result<(), RunError> {
        let (index, found) = (0, update.width());
        if found != self.width || update.count() != 1 {
            return Err(AggregateError::Shape { index, found, expected: self.width }.into());
        }
        if num_samples == 0 {
            return Err(AggregateError::ZeroSamples { index }.into());
        }
        if num_samples > NUM_SAMPLES_MAX {
            return Err(AggregateError::TooManySamples { index, found: num_samples }.into());
        }
        let total = self.sum_of_samples(num_samples)?;
        let cuts = cut::<T>([i128::from(num_samples)]);
        each_part(work, &mut self.strips, STRIPS_READ, |first, strips| {
            read(update, first, strips, |_, values| fit(values))
        })?;
        each_part(work, &mut self.strips, STRIPS_READ, |first, strips| {
            read(update, first, strips, |strip, values| {
                strip.add(values, &cuts);
                Ok(())
            })
        })?;
        (self.total, self.updates) = (total, self.updates + 1);
        Ok(())
    }

    /// Takes another partial sum in.
    pub fn merge(&mut self, other: &Self, work: &Work) -> Result<(), RunError> {
        if other.width != self.width {
            let (found, expected) = (other.width, self.width);
            return Err(AggregateError::Shape { index: 0, found, expected }.into());
        }
        self.total = self.sum_of_samples(other.total)?;
        self.updates += other.updates;
        each_part(work, &mut self.strips, STRIPS_READ, |first, strips| {
            strips.iter_mut().zip(&other.strips[first..]).for_each(|(to, from)| to.merge(from));
            Ok(())
        })
    }

    /// The mean of all updates in it, each weight rounded once.
    pub fn finish(&self, work: &Work, out: Out<'_, T>) -> Result<(), RunError> {
        if self.total == 0 {
            return Err(AggregateError::Empty.into());
        }
        out.check(1, self.width)?;
        let divisor = Divisor::new::<T>(self.total, 2);
        // Blocks begin with a strip, as their length is a multiple of a strip's.
        each_block(work, self.width, out, Sums::default, |range, out, sums| {
            let strips = &self.strips[range.start / STRIP..];
            for (index, (strip, out)) in strips.iter().zip(out[0].chunks_mut(STRIP)).enumerate() {
                strip.load(sums);
                if T::settle(sums, divisor, out) {
                    self.settle_open(strip, sums, out);
                }
                if let Some(at) = out.iter().position(|value| !value.finite()) {
                    let coordinate = range.start + index * STRIP + at;
                    return Err(AggregateError::ResultNotFinite { coordinate }.into());
                }
            }
            Ok(())
        })
    }

    fn settle_open(&self, strip: &Planes, sums: &Sums, out: &mut [T]) {
        for (at, out) in out.iter_mut().enumerate().filter(|(at, _)| sums.is_open(*at)) {
            let parts = strip.parts(at);
            *out = exact::weighted_mean(parts.iter().map(|part| (*part, 1)), self.total);
        }
    }

    fn sum_of_samples(&self, more: u64) -> Result<u64, AggregateError> {
        let updates = usize::try_from(self.updates).unwrap_or(usize::MAX).saturating_add(1);
        self.total.checked_add(more).ok_or(AggregateError::SamplesOverflow { updates })
    }
}

/// Hands each strip its part of the update.
fn read<T: Element>(
    update: &dyn Rows<T>,
    first: usize,
    strips: &mut [Planes],
    each: impl Fn(&mut Planes, &[T]) -> Result<(), AggregateError>,
) -> Result<(), RunError> {
    let len: usize = strips.iter().map(Planes::len).sum();
    let start = first * STRIP;
    let mut scratch = vec![];
    let values = update.read(0, start..start + len, &mut scratch);
    let values = values.map_err(|source| RunError::Read { row: 0, source })?;
    if values.len() != len {
        let (found, expected) = (values.len(), len);
        return Err(AggregateError::Shape { index: 0, found, expected }.into());
    }
    for (strip, values) in strips.iter_mut().zip(values.chunks(STRIP)) {
        each(strip, values)?;
    }
    Ok(())
}

fn fit<T: Element>(values: &[T]) -> Result<(), AggregateError> {
    // Seen as a whole first, for the compiler to see it as a vector.
    let within = |value: &T| value.to_f64().abs() <= MAGNITUDE_MAX;
    if values.iter().fold(true, |fit, value| fit & within(value)) {
        return Ok(());
    }
    let found = values.iter().find(|value| !within(value)).expect("one of them is too large");
    if found.finite() {
        return Err(AggregateError::TooLarge { found: found.to_f64(), max: MAGNITUDE_MAX });
    }
    Err(AggregateError::NotFinite { index: 0 })
}
