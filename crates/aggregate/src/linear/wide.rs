//! The kernel of `f64`: sums are kept in two parts, so that their quotients can be rounded.

use std::ops::{Range, RangeInclusive};

use super::{Bound, Decided, Divisor, Half, Kernel, STRIPS, Sums, two_sum};

/// Beyond these, a step of the division might lose bits below the smallest subnormal, or overflow.
const QUOTIENT: RangeInclusive<f64> = 1e-270..=1e290;

impl Kernel for f64 {
    /// 26 bits times the 27 of half an element are 53.
    const WEIGHT_BITS: u32 = 26;
    const DIVISOR_BITS: u32 = 53;

    fn halves() -> &'static [Half] {
        &[Half::Upper, Half::Lower]
    }

    #[inline(always)]
    fn try_quick(
        _terms: &[(&[Self], f64)],
        _at: Range<usize>,
        _bound: Bound,
        _sums: &mut Sums,
        _out: &mut [Self],
    ) -> Decided {
        [false; STRIPS]
    }

    #[inline(always)]
    fn sum_up(terms: &[(&[Self], f64)], at: Range<usize>, sums: &mut Sums) {
        sums.high.fill(0.0);
        sums.low.fill(0.0);
        sums.lost.fill(0.0);
        for (row, n) in terms {
            let parts = sums.high.iter_mut().zip(&mut *sums.low).zip(&mut *sums.lost);
            for (((high, low), lost), w) in parts.zip(&row[at.clone()]) {
                let (sum, first) = two_sum(*high, Half::Upper.of(*w) * n);
                let (sum, second) = two_sum(sum, Half::Lower.of(*w) * n);
                *high = sum;
                *low = *low + first + second;
                *lost = *lost + first.abs() + second.abs();
            }
        }
    }

    #[inline(always)]
    fn settle(sums: &mut Sums, divisor: Divisor, out: &mut [Self]) -> bool {
        let mut any = false;
        let parts = sums.high.iter().zip(&*sums.low).zip(&*sums.lost);
        for ((((high, low), lost), open), out) in parts.zip(&mut *sums.open).zip(out) {
            let (sum, rest) = two_sum(*high, *low);
            let quotient = sum / divisor.total;
            let remainder = (-quotient).mul_add(divisor.total, sum);
            let small = (remainder + rest) / divisor.total;
            let (rounded, off) = two_sum(quotient, small);
            // What the additions to `low` and the second quotient may have lost.
            let doubt =
                (lost * (4.0 * divisor.terms) / divisor.total + small.abs() * 8.0) * Self::EPSILON;
            let agreed = (rounded + (off + doubt * 2.0) == rounded)
                & (rounded + (off - doubt * 2.0) == rounded);
            let usual = (rounded.abs() >= *QUOTIENT.start()) & (high.abs() <= *QUOTIENT.end());
            let zero = (*high == 0.0) & (*lost == 0.0);
            *open = !(zero | (agreed & usual & divisor.short));
            any |= *open;
            *out = rounded;
        }
        any
    }
}
