//! The kernel of `f32`: products are exact in `f64`, and mostly so are their sums.

use std::ops::Range;

use super::{Bound, Decided, Divisor, Half, Kernel, STRIP, Sums, two_sum};

/// Coordinates of one step of the loop.
const LANES: usize = 16;
/// Terms that are added while a sum is held in registers.
const GROUP: usize = 4;

impl Kernel for f32 {
    /// 29 bits times the 24 of an element are the 53 of an `f64`.
    const WEIGHT_BITS: u32 = 29;
    /// 28 bits times the 25 of what lies half way between two elements.
    const DIVISOR_BITS: u32 = 28;

    fn halves() -> &'static [Half] {
        &[Half::All]
    }

    #[inline(always)]
    fn try_quick(
        terms: &[(&[Self], f64)],
        at: Range<usize>,
        bound: Bound,
        sums: &mut Sums,
        out: &mut [Self],
    ) -> Decided {
        sums.quick.means(terms, at, bound, out)
    }

    #[inline(always)]
    fn sum_up(terms: &[(&[Self], f64)], at: Range<usize>, sums: &mut Sums) {
        sums.high[..at.len()].fill(0.0);
        sums.lost[..at.len()].fill(0.0);
        let mut groups = terms.chunks_exact(GROUP);
        for group in &mut groups {
            let group: &[_; GROUP] = group.try_into().expect("as many as a group has");
            add_group(group.map(|(row, n)| (&row[at.clone()], n)), sums);
        }
        for (row, n) in groups.remainder() {
            add_group([(&row[at.clone()], *n)], sums);
        }
    }

    #[inline(always)]
    fn settle(sums: &mut Sums, divisor: Divisor, out: &mut [Self]) -> bool {
        let mut any = false;
        let doubled = 2.0 / divisor.total;
        for (((high, lost), open), out) in
            sums.high.iter().zip(&*sums.lost).zip(&mut *sums.open).zip(out)
        {
            let quotient = *high / divisor.total;
            // The sum is off by at most what was lost; the division, and the conversion of a very
            // large divisor, by a relative 2^-53 each. Twice of each is room for rounding here.
            let off = *lost * doubled + quotient.abs() * (4.0 * f64::EPSILON);
            let (least, most) = ((quotient - off) as Self, (quotient + off) as Self);
            let agreed = least.to_bits() == most.to_bits();
            // A tie: exact sum, exact product, and equal to it, so the cast rounds it to even.
            let halfway = quotient.to_bits() & 0x1fff_ffff == 0x1000_0000;
            let tie = halfway
                & divisor.short
                & (*lost == 0.0)
                & (quotient * divisor.total == *high)
                & (quotient.abs() >= f64::from(Self::MIN_POSITIVE));
            *open = !((agreed | tie) & (high.abs() <= f64::MAX));
            any |= *open;
            *out = quotient as Self;
        }
        any
    }
}

#[inline(always)]
fn add_group<const N: usize>(group: [(&[f32], f64); N], sums: &mut Sums) {
    let len = group[0].0.len().min(STRIP);
    let whole = len - len % LANES;
    for start in (0..whole).step_by(LANES) {
        let high: &mut [f64; LANES] =
            (&mut sums.high[start..start + LANES]).try_into().expect("lanes");
        let lost: &mut [f64; LANES] =
            (&mut sums.lost[start..start + LANES]).try_into().expect("lanes");
        let (mut sum, mut loss) = (*high, *lost);
        for (row, n) in &group {
            let row: &[f32; LANES] = row[start..start + LANES].try_into().expect("lanes");
            for lane in 0..LANES {
                let (total, lost) = two_sum(sum[lane], f64::from(row[lane]) * n);
                sum[lane] = total;
                loss[lane] += lost.abs();
            }
        }
        (*high, *lost) = (sum, loss);
    }
    for at in whole..len {
        for (row, n) in &group {
            let (total, lost) = two_sum(sums.high[at], f64::from(row[at]) * n);
            sums.high[at] = total;
            sums.lost[at] += lost.abs();
        }
    }
}
