//! The first try at strips of `f32`: plain sums, and one bound on their error known beforehand.
//!
//! Products are exact, so what `k` additions in `f64` lose of a sum is at most `k u W m`, where `u`
//! is 2^-53, `W` the sum of the magnitudes of the weights, and `m` the greatest magnitude among the
//! coordinate's elements (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition,
//! section 4.2). Of all these only `m` differs between coordinates. The bound is far from tight and
//! yet a millionth of what lies between two `f32`, so hardly a strip has to be summed again.

use std::ops::Range;

use super::{Cut, STRIP};

/// Coordinates of one step of the loop.
const LANES: usize = 16;
/// Strips that are summed at once: so many numbers of a row in one go are read at full speed, and
/// the sums still stay in a near cache.
pub(super) const STRIPS: usize = 4;
const LEN: usize = STRIPS * STRIP;
/// Rows that are added while a sum is held in registers, where there are many: as many streams as
/// a processor follows well.
const GROUP: usize = 8;
/// As many are still added in one go, which is faster than in two.
const GROUP_MAX: usize = 12;
/// Attempts that are at most left out after one that was of no use.
const CAREFUL_MAX: u32 = 63;

/// What the sums are multiplied by, and how far off the product is for elements up to 1.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    share: f64,
    off: f64,
}

impl Bound {
    pub(super) fn new(total: u64, cuts: &[Cut]) -> Self {
        let total = total as f64;
        let weight: f64 = cuts.iter().map(|cut| cut.weight.abs()).sum();
        // Beside the additions: the reciprocal, its product, and the ends of the interval are
        // rounded. Twice of all of it is room for the roundings of this line.
        let roundings = 2.0 * cuts.len() as f64 + 16.0;
        Self { share: 1.0 / total, off: roundings * (weight / total) * (f64::EPSILON / 2.0) }
    }
}

/// Which of a few strips are decided.
pub(super) type Decided = [bool; STRIPS];

/// The sums of a few strips, and the greatest magnitudes in them.
#[derive(Debug)]
pub(super) struct Tally {
    sums: Box<[f64; LEN]>,
    /// Bits of a `f32` without its sign, moved to the left: their order is that of magnitudes.
    peaks: Box<[u32; LEN]>,
    /// Attempts to be left out: where strips had to be summed again, so will others.
    careful: u32,
    careful_next: u32,
}

impl Default for Tally {
    fn default() -> Self {
        let (sums, peaks) = (Box::new([0.0; LEN]), Box::new([0; LEN]));
        Self { sums, peaks, careful: 0, careful_next: 0 }
    }
}

impl Tally {
    /// The means of up to [`STRIPS`] strips, as far as the bound decides them; what is left of `out`
    /// is to be made anew.
    #[inline(always)]
    pub(super) fn means(
        &mut self,
        terms: &[(&[f32], f64)],
        at: Range<usize>,
        bound: Bound,
        out: &mut [f32],
    ) -> Decided {
        let mut decided = [false; STRIPS];
        if !at.len().is_multiple_of(LANES) {
            return decided;
        }
        if self.careful > 0 {
            self.careful -= 1;
            return decided;
        }
        self.sum_up(terms, at);
        let mut open = 0;
        for (index, (out, decided)) in out.chunks_mut(STRIP).zip(&mut decided).enumerate() {
            let strip = index * STRIP..index * STRIP + out.len();
            *decided = settle(&self.sums[strip.clone()], &self.peaks[strip], bound, out);
            open += usize::from(!*decided);
        }
        if 2 * open < out.len().div_ceil(STRIP) {
            self.careful_next = 0;
        } else {
            self.careful = self.careful_next;
            self.careful_next = (2 * self.careful_next + 1).min(CAREFUL_MAX);
        }
        decided
    }

    #[inline(always)]
    fn sum_up(&mut self, terms: &[(&[f32], f64)], at: Range<usize>) {
        self.sums[..at.len()].fill(0.0);
        self.peaks[..at.len()].fill(0);
        let group = if terms.len() <= GROUP_MAX { GROUP_MAX } else { GROUP };
        for group in terms.chunks(group) {
            match group.len() {
                1 => self.add::<1>(group, &at),
                2 => self.add::<2>(group, &at),
                3 => self.add::<3>(group, &at),
                4 => self.add::<4>(group, &at),
                5 => self.add::<5>(group, &at),
                6 => self.add::<6>(group, &at),
                7 => self.add::<7>(group, &at),
                8 => self.add::<8>(group, &at),
                9 => self.add::<9>(group, &at),
                10 => self.add::<10>(group, &at),
                11 => self.add::<11>(group, &at),
                _ => self.add::<GROUP_MAX>(group, &at),
            }
        }
    }

    #[inline(always)]
    fn add<const N: usize>(&mut self, group: &[(&[f32], f64)], at: &Range<usize>) {
        let group: &[(&[f32], f64); N] = group.try_into().expect("as many as were counted");
        let rows: [&[[f32; LANES]]; N] = group.map(|(row, _)| row[at.clone()].as_chunks().0);
        let steps = at.len() / LANES;
        let (sums, _) = self.sums[..at.len()].as_chunks_mut::<LANES>();
        let (peaks, _) = self.peaks[..at.len()].as_chunks_mut::<LANES>();
        for step in 0..steps {
            let (mut sum, mut peak) = (sums[step], peaks[step]);
            for (row, (_, n)) in rows.iter().zip(group) {
                let row = row[step];
                for lane in 0..LANES {
                    sum[lane] += f64::from(row[lane]) * n;
                    peak[lane] = peak[lane].max(row[lane].to_bits() << 1);
                }
            }
            (sums[step], peaks[step]) = (sum, peak);
        }
    }
}

/// The means of a strip, and whether they are decided.
#[inline(always)]
fn settle(sums: &[f64], peaks: &[u32], bound: Bound, out: &mut [f32]) -> bool {
    let (mut apart, mut peak_max) = (0, 0);
    for ((sum, peak), out) in sums.iter().zip(peaks).zip(out) {
        let quotient = sum * bound.share;
        let off = f64::from(f32::from_bits(peak >> 1)) * bound.off;
        let (least, most) = ((quotient - off) as f32, (quotient + off) as f32);
        apart |= least.to_bits() ^ most.to_bits();
        peak_max = peak_max.max(*peak);
        *out = most;
    }
    apart == 0 && f32::from_bits(peak_max >> 1).is_finite()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{cut, exact},
        *,
    };

    /// What a coordinate's elements are like.
    #[derive(Clone, Copy, Debug)]
    enum Elements {
        Alike,
        Anything,
        Cancelling,
        Subnormal,
        Whole,
        Zeros,
    }

    fn elements() -> impl Strategy<Value = Elements> {
        prop_oneof![
            4 => Just(Elements::Alike),
            2 => Just(Elements::Anything),
            1 => Just(Elements::Cancelling),
            1 => Just(Elements::Subnormal),
            1 => Just(Elements::Whole),
            1 => Just(Elements::Zeros),
        ]
    }

    fn element(kind: Elements, near: u32, row: usize, bits: u32) -> f32 {
        match kind {
            Elements::Alike => f32::from_bits(near ^ (bits & 0x803f_ffff)),
            Elements::Anything => f32::from_bits(bits & 0xff7f_ffff),
            Elements::Cancelling => f32::from_bits(near ^ ((row as u32 % 2) << 31) ^ (bits & 1)),
            Elements::Subnormal => f32::from_bits(bits & 0x800f_ffff),
            Elements::Whole => (bits % 64) as f32,
            Elements::Zeros => f32::from_bits(bits & 1 << 31),
        }
    }

    /// The means of one step of the loop, if they are decided.
    fn quick(rows: &[Vec<f32>], weights: &[i128], total: u64) -> Option<Vec<f32>> {
        let cuts = cut::<f32>(weights.iter().copied());
        let terms: Vec<(&[f32], f64)> =
            cuts.iter().map(|cut| (&*rows[cut.row], cut.weight)).collect();
        let mut out = vec![0.0; LANES];
        let bound = Bound::new(total, &cuts);
        let [decided, ..] = Tally::default().means(&terms, 0..LANES, bound, &mut out);
        decided.then_some(out)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// Whatever is decided is what the exact sums say, to the sign of a zero.
        #[test]
        fn what_is_decided_is_right(
            kind in elements(),
            near in 0x0080_0000..0x7f00_0000_u32,
            rows in prop::collection::vec(
                (prop::array::uniform16(any::<u32>()),
                 prop_oneof![Just(1_u64), 1..2000_u64, 1..=1_u64 << 53]), 1..40),
            difference in any::<bool>(),
        ) {
            let mut weights: Vec<i128> = rows.iter().map(|(_, n)| (*n).into()).collect();
            let total: u64 = rows.iter().map(|(_, n)| n).sum();
            let mut rows: Vec<Vec<f32>> = rows
                .iter()
                .enumerate()
                .map(|(row, (bits, _))| bits.map(|bits| element(kind, near, row, bits)).to_vec())
                .collect();
            if difference {
                weights.push(-i128::from(total));
                rows.push(vec![f32::from_bits(near); LANES]);
            }
            if let Some(found) = quick(&rows, &weights, total) {
                for (at, found) in found.iter().enumerate() {
                    let terms = rows.iter().zip(&weights).map(|(row, n)| (row[at].into(), *n));
                    let expected: f32 = exact::weighted_mean(terms, total);
                    prop_assert_eq!(found.to_bits(), expected.to_bits(), "{} {}", found, expected);
                }
            }
        }
    }

    /// It would be no use if it decided nothing.
    #[test]
    fn nearly_all_updates_of_a_model_are_decided() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut number = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 41) as f32 * 1.3e-8 - 0.05
        };
        let weights: Vec<i128> = (0..10).map(|row| 400 + row * 37 % 211).collect();
        let total = weights.iter().sum::<i128>() as u64;
        let decided = (0..1000).filter(|_| {
            let rows: Vec<Vec<f32>> =
                weights.iter().map(|_| (0..LANES).map(|_| number()).collect()).collect();
            quick(&rows, &weights, total).is_some()
        });
        assert!(decided.count() >= 990);
    }

    #[test]
    fn ties_zeros_of_either_sign_and_what_is_not_finite_are_left_open() {
        let open = |rows: &[f32]| {
            let rows: Vec<Vec<f32>> = rows.iter().map(|it| vec![*it; LANES]).collect();
            quick(&rows, &vec![1; rows.len()], rows.len() as u64).is_none()
        };
        assert!(open(&[1.0, 1.0_f32.next_up()]), "half way between the two");
        assert!(open(&[1.0, -1.0]), "nothing is left of it, from which side is not known");
        assert!(open(&[1.0, f32::NAN]) && open(&[-f32::NAN, -f32::NAN]));
        assert!(open(&[1.0, f32::INFINITY]) && open(&[f32::NEG_INFINITY, f32::NEG_INFINITY]));
        assert!(!open(&[1.0, 2.0]) && !open(&[0.0, -0.0]) && !open(&[f32::MAX, f32::MAX]));
    }

    #[test]
    fn where_strips_stay_open_fewer_are_tried() {
        let (even, odd) = ([1.0; LANES], [1.0_f32.next_up(); LANES]);
        let cuts = cut::<f32>([1, 1]);
        let bound = Bound::new(2, &cuts);
        let (mut tally, mut out) = (Tally::default(), [0.0; LANES]);
        let mut tried = 0;
        for _ in 0..1000 {
            tried += u32::from(tally.careful == 0);
            let decided = tally.means(&[(&even, 1.0), (&odd, 1.0)], 0..LANES, bound, &mut out);
            assert_eq!(decided, [false; STRIPS]);
        }
        assert!((16..=25).contains(&tried), "{tried}");
        // And soon all of them again.
        let ended = (0..100)
            .filter(|_| tally.means(&[(&even, 1.0), (&even, 2.0)], 0..LANES, bound, &mut out)[0]);
        assert!(ended.count() >= 100 - CAREFUL_MAX as usize);
    }
}
