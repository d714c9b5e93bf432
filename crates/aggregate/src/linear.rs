//! Weighted means at the speed of memory: exact sums, rounded once.
//!
//! A result is *defined* as the exact quotient `sum(n_i * w_i) / total`, rounded once to the
//! element type ([`crate::exact`]). So it cannot depend on order, threads, blocks or processors.
//! Almost always it is found faster: sums are taken in `f64` with what each addition lost
//! (Knuth's two-sum), and when every number within the bound on the error rounds to the same
//! element, that is the answer (Ziv, "Fast evaluation of elementary mathematical functions with
//! correctly rounded last bit", 1991). The few coordinates that stay open are summed exactly.

mod narrow;
mod quick;
mod wide;

use std::ops::Range;

use self::quick::{Bound, Decided, STRIPS, Tally};
use crate::{
    AggregateError, Element, Rows, RunError, exact,
    simd::{Vectorised, dispatch},
    work::{Buffers, Out, Work, each_block},
};

/// Coordinates that are summed at once: their sums stay in the fastest cache.
pub(crate) const STRIP: usize = 1024;

/// Rows, and how often each counts: `sum(weights[i] * rows[i]) / total`, weights of either sign.
pub(crate) struct Combination {
    pub(crate) weights: Vec<i128>,
    pub(crate) total: u64,
}

impl Combination {
    /// The mean of rows with these weights, which are not all zero.
    pub(crate) fn mean(weights: &[u64]) -> Result<Self, AggregateError> {
        let total = weights.iter().try_fold(0_u64, |sum, weight| sum.checked_add(*weight));
        let total = total.ok_or(AggregateError::SamplesOverflow { updates: weights.len() })?;
        assert!(total > 0, "some row has a weight");
        Ok(Self { weights: weights.iter().map(|weight| i128::from(*weight)).collect(), total })
    }
}

/// A piece of a row's weight, so short that its products with an element are exact.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    row: usize,
    pub(crate) weight: f64,
}

/// The pieces of each row's weight.
pub(crate) fn cut<T: Element>(weights: impl IntoIterator<Item = i128>) -> Vec<Cut> {
    let mut cuts = vec![];
    for (row, weight) in weights.into_iter().enumerate() {
        let sign = if weight < 0 { -1.0 } else { 1.0 };
        let mut rest = weight.unsigned_abs();
        let mut unit = 1.0;
        while rest != 0 {
            let piece = rest & ((1 << T::WEIGHT_BITS) - 1);
            if piece != 0 {
                cuts.push(Cut { row, weight: sign * unit * piece as f64 });
            }
            rest >>= T::WEIGHT_BITS;
            unit *= f64::from(1_u32 << T::WEIGHT_BITS);
        }
    }
    cuts
}

/// A combination, ready for the kernels of one type of element.
pub(crate) struct Prepared<'a> {
    combination: &'a Combination,
    cuts: Vec<Cut>,
    divisor: Divisor,
    bound: Bound,
}

/// What the sums are divided by, and the bounds that go with it.
#[derive(Clone, Copy, Debug)]
pub struct Divisor {
    total: f64,
    /// Whether `total` is the divisor itself, and so short that its product with what lies half
    /// way between two elements is exact.
    short: bool,
    /// Additions in each sum.
    terms: f64,
}

impl Divisor {
    pub(crate) fn new<T: Element>(total: u64, terms: usize) -> Self {
        let short = total < 1 << T::DIVISOR_BITS;
        Self { total: total as f64, short, terms: terms as f64 }
    }
}

impl<'a> Prepared<'a> {
    pub(crate) fn new<T: Element>(combination: &'a Combination) -> Self {
        let cuts = cut::<T>(combination.weights.iter().copied());
        let divisor = Divisor::new::<T>(combination.total, cuts.len());
        let bound = Bound::new(combination.total, &cuts);
        Self { combination, cuts, divisor, bound }
    }

    /// The combination of a block of each row. Rows without a weight are not looked at.
    pub(crate) fn block<T: Element>(
        &self,
        rows: &[&[T]],
        out: &mut [T],
        sums: &mut Sums,
    ) -> Result<(), Broken> {
        let terms: Vec<(&[T], f64)> =
            self.cuts.iter().map(|cut| (rows[cut.row], cut.weight)).collect();
        let Self { divisor, bound, .. } = *self;
        let open = dispatch(Blockwise { terms: &terms, divisor, bound, out, sums });
        for coordinate in open {
            let terms = || self.combination.weights.iter().zip(rows).filter(|(n, _)| **n != 0);
            let finite = |(_, row): &(&i128, &&[T])| row[coordinate].finite();
            if !terms().all(|term| finite(&term)) {
                let row = (0..rows.len()).find(|row| {
                    self.combination.weights[*row] != 0 && !rows[*row][coordinate].finite()
                });
                return Err(Broken { row: row.expect("one of them is not finite") });
            }
            let terms = terms().map(|(n, row)| (row[coordinate].to_f64(), *n));
            out[coordinate] = exact::weighted_mean(terms, self.combination.total);
        }
        Ok(())
    }
}

/// A row held something that is not finite.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) row: usize,
}

/// What the kernels of an element type do; implemented for the types of [`Element`].
pub trait Kernel: Sized {
    /// Bits that a piece of a weight may have.
    const WEIGHT_BITS: u32;
    /// Bits that a divisor may have for ties to be told apart fast.
    const DIVISOR_BITS: u32;

    /// The parts of an element whose products with a piece of a weight are exact.
    fn halves() -> &'static [Half];

    /// The combination of up to [`STRIPS`] strips, where plain sums decide all of a strip; what is
    /// not decided of `out` is to be made anew.
    fn try_quick(
        terms: &[(&[Self], f64)],
        at: Range<usize>,
        bound: Bound,
        sums: &mut Sums,
        out: &mut [Self],
    ) -> Decided;

    /// Sums the terms of a strip, anew.
    fn sum_up(terms: &[(&[Self], f64)], at: Range<usize>, sums: &mut Sums);

    /// Divides and rounds the sums of a strip; tells whether any coordinate stays open.
    fn settle(sums: &mut Sums, divisor: Divisor, out: &mut [Self]) -> bool;
}

/// A part of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    All,
    /// The 27 upper bits of an `f64`.
    Upper,
    /// The other 26.
    Lower,
}

impl Half {
    #[inline(always)]
    pub(crate) fn of(self, value: f64) -> f64 {
        match self {
            Self::All => value,
            Self::Upper => f64::from_bits(value.to_bits() & UPPER),
            Self::Lower => value - f64::from_bits(value.to_bits() & UPPER),
        }
    }
}

/// Clears the lower half of an `f64`'s bits: what is left has 27, and what is cut off has 26.
const UPPER: u64 = !((1 << 26) - 1);

/// The sums of a strip of coordinates, in parts.
#[derive(Debug)]
pub struct Sums {
    /// The rounded sums.
    high: Box<[f64; STRIP]>,
    /// What the rounding lost, added up; not used where the loss need only be bounded.
    low: Box<[f64; STRIP]>,
    /// The sum of the magnitudes of what was lost.
    lost: Box<[f64; STRIP]>,
    /// Whether a coordinate is not decided by these sums.
    open: Box<[bool; STRIP]>,
    quick: Tally,
}

impl Default for Sums {
    fn default() -> Self {
        let zeros = || Box::new([0.0; STRIP]);
        let (open, quick) = (Box::new([false; STRIP]), Tally::default());
        Self { high: zeros(), low: zeros(), lost: zeros(), open, quick }
    }
}

impl Sums {
    /// Sums that are known exactly, to be settled.
    pub(crate) fn load(&mut self, sums: &[f64]) {
        self.high[..sums.len()].copy_from_slice(sums);
        self.low.fill(0.0);
        self.lost.fill(0.0);
    }

    /// What is to be added to one of them.
    pub(crate) fn load_low(&mut self, at: usize, low: f64) {
        self.low[at] = low;
        self.lost[at] = low.abs();
    }

    /// One of them is not known: it stays open.
    pub(crate) fn load_unknown(&mut self, at: usize) {
        self.high[at] = f64::NAN;
    }

    pub(crate) fn is_open(&self, at: usize) -> bool {
        self.open[at]
    }
}

struct Blockwise<'a, T> {
    terms: &'a [(&'a [T], f64)],
    divisor: Divisor,
    bound: Bound,
    out: &'a mut [T],
    sums: &'a mut Sums,
}

impl<T: Element> Vectorised for Blockwise<'_, T> {
    type Output = Vec<usize>;

    #[inline(always)]
    fn run(self) -> Vec<usize> {
        let mut open = vec![];
        for (index, strips) in self.out.chunks_mut(STRIPS * STRIP).enumerate() {
            let mut start = index * STRIPS * STRIP;
            let at = start..start + strips.len();
            let decided = T::try_quick(self.terms, at, self.bound, self.sums, strips);
            for (strip, decided) in strips.chunks_mut(STRIP).zip(decided) {
                let end = start + strip.len();
                if !decided {
                    T::sum_up(self.terms, start..end, self.sums);
                    if T::settle(self.sums, self.divisor, strip) {
                        let left = self.sums.open[..strip.len()].iter().enumerate();
                        open.extend(left.filter(|(_, open)| **open).map(|(at, _)| start + at));
                    }
                }
                start = end;
            }
        }
        open
    }
}

/// `s + p` rounded, and what the rounding lost, exactly: Knuth, TAOCP 2, theorem 4.2.2B.
#[inline(always)]
pub(crate) fn two_sum(s: f64, p: f64) -> (f64, f64) {
    let t = s + p;
    let b = t - s;
    (t, (s - (t - b)) + (p - b))
}

/// The combination of whole rows.
pub(crate) fn combine<T: Element>(
    rows: &dyn Rows<T>,
    combination: &Combination,
    work: &Work,
    out: Out<'_, T>,
) -> Result<(), RunError> {
    let prepared = Prepared::new::<T>(combination);
    let scratch = || (Buffers::new(rows.count()), Sums::default());
    each_block(work, rows.width(), out, scratch, |range, out, (buffers, sums)| {
        let views = buffers.read(rows, &range)?;
        let done = prepared.block(&views, out[0], sums);
        done.map_err(|broken| AggregateError::NotFinite { index: broken.row }.into())
    })
}

/// `sum(weights[i] * rows[i]) / sum(weights)`, each element correctly rounded, whatever the order
/// of the rows, the threads and the blocks. At least one weight is not zero.
pub fn weighted_mean<T: Element>(
    rows: &dyn Rows<T>,
    weights: &[u64],
    work: &Work,
    out: &mut [T],
) -> Result<(), RunError> {
    let (found, updates) = (weights.len(), rows.count());
    if found != updates {
        return Err(AggregateError::Facts { what: "weight", found, updates }.into());
    }
    if weights.iter().all(|weight| *weight == 0) {
        return Err(AggregateError::Empty.into());
    }
    let out = Out::Slices(vec![out]);
    out.check(1, rows.width())?;
    combine(rows, &Combination::mean(weights)?, work, out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Slices;

    /// Compares with the exact accumulator, coordinate by coordinate.
    fn check<T: Element>(rows: &[Vec<T>], weights: &[i128], total: u64) {
        let views: Vec<&[T]> = rows.iter().map(|row| &**row).collect();
        let width = views[0].len();
        let combination = Combination { weights: weights.to_vec(), total };
        let mut out = vec![T::ZERO; width];
        let made = Out::Slices(vec![&mut out]);
        let rows = Slices::new(&views).unwrap();
        combine(&rows, &combination, &Work { threads: 2, block: 1 }, made).unwrap();
        for at in 0..width {
            let terms = views.iter().zip(weights).map(|(row, n)| (row[at].to_f64(), *n));
            let expected: T = exact::weighted_mean(terms, total);
            let (found, expected) = (out[at].to_f64(), expected.to_f64());
            assert_eq!(found.to_bits(), expected.to_bits(), "at {at}: {found:e} {expected:e}");
        }
    }

    fn seeded(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed | 1;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }
    }

    /// Many coordinates of the kinds that decide: alike, far apart, cancelling, tiny, ties.
    fn rows(seed: u64, count: usize, width: usize) -> Vec<Vec<f64>> {
        let mut random = seeded(seed);
        let mut rows = vec![vec![0.0; width]; count];
        for at in 0..width {
            let kind = random() % 7;
            let near = f64::from(f32::from_bits(random() as u32 & 0xbfff_ffff | 0x0800_0000));
            for (index, row) in rows.iter_mut().enumerate() {
                let bits = random();
                row[at] = match kind {
                    0 => f64::from(f32::from_bits(bits as u32 & 0xff7f_ffff)),
                    1 => f64::from(f32::from_bits((near as f32).to_bits() ^ (bits as u32 & 0xff))),
                    2 => near * f64::from(1 - 2 * (index as i32 % 2)),
                    3 => f64::from(f32::from_bits(bits as u32 & 0x800f_ffff)),
                    4 => (bits % 64) as f64,
                    5 => [near, 0.0, -near, f64::from(f32::MAX), f64::from(f32::MIN), 1e-45]
                        [bits as usize % 6],
                    _ => (bits % 1000) as f64 / 1000.0,
                };
                row[at] = f64::from(row[at] as f32);
            }
        }
        rows
    }

    fn narrow(rows: &[Vec<f64>]) -> Vec<Vec<f32>> {
        rows.iter().map(|row| row.iter().map(|value| *value as f32).collect()).collect()
    }

    fn wide(rows: &[Vec<f64>], seed: u64) -> Vec<Vec<f64>> {
        let mut random = seeded(seed);
        let mut spread = |value: &f64| {
            let bits = random();
            match bits % 3 {
                0 => *value,
                1 => f64::from_bits(value.to_bits() ^ (bits >> 8 & 0xfff)),
                _ => *value * f64::from_bits((1023 + bits % 600 - 300) << 52),
            }
        };
        rows.iter().map(|row| row.iter().map(&mut spread).collect()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn fast_sums_have_the_bits_of_exact_ones(
            seed in any::<u64>(),
            weights in prop::collection::vec(
                prop_oneof![Just(1_u64), 1..2000_u64, 1..=1_u64 << 53], 1..12),
        ) {
            let signed: Vec<i128> = weights.iter().map(|n| i128::from(*n)).collect();
            let total = weights.iter().sum();
            let rows = rows(seed, weights.len(), 1500);
            check(&narrow(&rows), &signed, total);
            check(&wide(&rows, seed), &signed, total);
        }

        #[test]
        fn differences_have_the_bits_of_exact_ones(
            seed in any::<u64>(),
            weights in prop::collection::vec(prop_oneof![Just(1_u64), 1..1_u64 << 40], 1..9),
        ) {
            let total = weights.iter().sum();
            let mut signed: Vec<i128> = weights.iter().map(|n| i128::from(*n)).collect();
            signed.push(-i128::from(total));
            let rows = rows(seed, signed.len(), 700);
            check(&narrow(&rows), &signed, total);
            check(&wide(&rows, seed), &signed, total);
        }
    }

    #[test]
    fn equal_counts_make_ties_and_ties_go_to_even() {
        for count in 1..=8 {
            let rows = rows(count as u64, count, 20_000);
            check(&narrow(&rows), &vec![1; count], count as u64);
            check(&wide(&rows, 3), &vec![1; count], count as u64);
        }
    }
}
