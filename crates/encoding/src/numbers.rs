//! The numbers of one tensor on their way out: the update, or its difference from the base, and
//! what was left out before. Looked at several times, held only if they are few.

use std::ops::Range;

use protocol::{DType, Slot};

use crate::{EncodeError, Job, number, stage::int8};

/// Numbers that are looked at together; a multiple of what shares a scale.
pub(crate) const PIECE: usize = 64 << 10;

/// Most numbers that are held rather than read again.
const HELD_MAX: usize = 4 << 20;

const _: () = assert!(PIECE.is_multiple_of(int8::BLOCK));

/// The numbers of one tensor as `f32`.
#[derive(Debug)]
pub(crate) struct Numbers<'a> {
    job: &'a Job<'a>,
    name: &'a str,
    slot: &'a Slot,
    /// Where this tensor begins in the residual.
    first: usize,
    held: Option<Vec<f32>>,
}

impl<'a> Numbers<'a> {
    pub(crate) const fn new(
        job: &'a Job<'a>,
        (name, slot): (&'a str, &'a Slot),
        first: usize,
    ) -> Self {
        Self { job, name, slot, first, held: None }
    }

    /// Shows all numbers, piece by piece, with the place of each piece's first.
    pub(crate) fn look(
        &mut self,
        mut each: impl FnMut(usize, &[f32]) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let count = self.slot.count();
        if count > HELD_MAX {
            let mut piece = vec![];
            return split(count).try_for_each(|range| {
                piece.clear();
                self.read(range.clone(), &mut piece)?;
                each(range.start, &piece)
            });
        }
        if self.held.is_none() {
            let mut all = Vec::with_capacity(count);
            split(count).try_for_each(|range| self.read(range, &mut all))?;
            self.held = Some(all);
        }
        let held = self.held.as_deref().unwrap_or_default();
        split(count).try_for_each(|range| each(range.start, &held[range]))
    }

    fn read(&self, range: Range<usize>, out: &mut Vec<f32>) -> Result<(), EncodeError> {
        let from = out.len();
        match self.slot.dtype {
            DType::F64 => {
                let values = difference::<f64>(self.job, self.name, self.slot, range.clone())?;
                out.extend(values.into_iter().map(|value| value as f32));
            }
            DType::F32 | DType::F16 | DType::BF16 | DType::I8 => {
                out.extend(difference::<f32>(self.job, self.name, self.slot, range.clone())?);
            }
        }
        let values = &mut out[from..];
        self.add_residual(range.start, values)?;
        match number::not_finite(values) {
            Some(place) => Err(self.range(range.start + place, DType::F32)),
            None => Ok(()),
        }
    }

    fn add_residual(&self, start: usize, values: &mut [f32]) -> Result<(), EncodeError> {
        let Some(residual) = self.job.residual else { return Ok(()) };
        let size = DType::F32.size();
        let mut bytes = vec![0; values.len() * size];
        residual.read_at(((self.first + start) * size) as u64, &mut bytes)?;
        let mut rest = vec![0.0; values.len()];
        number::widen::<f32>(DType::F32, &bytes, &mut rest);
        for (value, rest) in values.iter_mut().zip(rest) {
            // A residual that was spoiled on disk must not silence its device for good.
            *value += if rest.is_finite() { rest } else { 0.0 };
        }
        Ok(())
    }

    /// What to say of a number that the wire's type cannot hold.
    pub(crate) fn range(&self, place: usize, dtype: DType) -> EncodeError {
        EncodeError::Range { name: self.name.to_owned(), place, dtype }
    }
}

/// The update's numbers, or their difference from the base, in the element type.
pub(crate) fn difference<T: number::Element + std::ops::Sub<Output = T>>(
    job: &Job<'_>,
    name: &str,
    slot: &Slot,
    range: Range<usize>,
) -> Result<Vec<T>, EncodeError> {
    let size = slot.dtype.size();
    let offset_bytes = (range.start * size) as u64;
    let mut bytes = vec![0; range.len() * size];
    let mut values = vec![T::default(); range.len()];
    job.update.read(name, offset_bytes, &mut bytes)?;
    number::widen(slot.dtype, &bytes, &mut values);
    if let Some(place) = number::not_finite(&values) {
        return Err(EncodeError::NotFinite { name: name.to_owned(), place: range.start + place });
    }
    if job.encoding.is_delta() {
        let mut base = vec![T::default(); range.len()];
        job.base.read(name, offset_bytes, &mut bytes)?;
        number::widen(slot.dtype, &bytes, &mut base);
        values.iter_mut().zip(base).for_each(|(value, base)| *value = *value - base);
    }
    Ok(values)
}

/// `0..count` in pieces.
pub(crate) fn split(count: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(PIECE).map(move |from| from..count.min(from + PIECE))
}
