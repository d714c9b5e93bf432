//! The weighted mean of floating point numbers, rounded once, at the very end.
//!
//! It is what every fast path falls back to, and what all of them are tested against. Every finite
//! `f64` is an integer times a power of two, so `sum(n_i * w_i)` is an integer too,
//! over the smallest of those powers. It is summed as one: nothing is lost, so no order of the
//! terms can matter. This is the long accumulator of Kulisch and Miranker ("The arithmetic of the
//! digital computer: a new approach", SIAM Review 28, 1986), kept as short as the terms allow; see
//! also Neal, "Fast exact summation using small and large superaccumulators", 2015.
//!
//! The one rounding is of the exact quotient, to nearest, ties to even, to the element type that is
//! asked for. So a mean lies between the least and the greatest term, and cannot overflow; a
//! difference of means (weights of both signs) can, to infinity.

use crate::Element;

/// A finite number, and how often it counts: a negative weight takes it away.
pub(crate) type Term = (f64, i128);

/// Significant bits of an `f64`.
const PRECISION: u32 = 53;
/// The exponent of the smallest subnormal `f64`, the unit of all of them.
const EXPONENT_MIN: i32 = -1074;
/// The exponent of the greatest power of two that is an `f64`.
const EXPONENT_MAX: i32 = 1023;

/// `sum(n * w) / total` over the `(w, n)`, where the `w` are finite, each `n` is below `2^64` in
/// magnitude, and `total` is at least 1.
pub(crate) fn weighted_mean<T: Element>(
    terms: impl Iterator<Item = Term> + Clone,
    total: u64,
) -> T {
    let (mut low, mut high, mut weight) = (i32::MAX, i32::MIN, 0_u128);
    for (w, n) in terms.clone() {
        let parts = Parts::of(w);
        if parts.mantissa != 0 && n != 0 {
            low = low.min(parts.exponent);
            high = high.max(parts.exponent);
            weight += n.unsigned_abs();
        }
    }
    if low > high {
        return T::ZERO;
    }
    // Bits of the sum: those of a mantissa, shifted by up to the spread, times up to the weight.
    let bits = high.abs_diff(low) + PRECISION + (u128::BITS - weight.leading_zeros());
    let rounded = if bits < i128::BITS - 1 {
        mean_short::<T>(terms, low, total)
    } else {
        mean_long::<T>(terms, low, bits, total)
    };
    T::from_f64(rounded)
}

/// The mean when the sum fits one integer, as it nearly always does.
fn mean_short<T: Element>(terms: impl Iterator<Item = Term>, low: i32, total: u64) -> f64 {
    let mut sum = 0_i128;
    for (w, n) in terms {
        let parts = Parts::of(w);
        if parts.mantissa != 0 && n != 0 {
            let shifted = i128::from(parts.mantissa) << parts.exponent.abs_diff(low);
            let term = shifted * n;
            sum += if parts.negative { -term } else { term };
        }
    }
    if sum == 0 {
        return 0.0;
    }
    let magnitude = sum.unsigned_abs();
    let shift = magnitude.leading_zeros();
    let (dividend, divisor) = (magnitude << shift, u128::from(total));
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    round::<T>(sum < 0, quotient, low - shift.cast_signed(), rest != 0)
}

/// The mean when the terms are too far apart for one integer.
fn mean_long<T: Element>(
    terms: impl Iterator<Item = Term>,
    low: i32,
    bits: u32,
    total: u64,
) -> f64 {
    // Two limbs of zeros below give the quotient more than 64 bits however small the sum is. Above
    // the limb where the highest term begins are the two more that a shifted term reaches into.
    let limbs = bits as usize / 64 + 5;
    let (mut plus, mut minus) = (vec![0_u64; limbs], vec![0_u64; limbs]);
    for (w, n) in terms {
        let parts = Parts::of(w);
        if parts.mantissa != 0 && n != 0 {
            let product = u128::from(parts.mantissa) * n.unsigned_abs();
            let side = if parts.negative ^ (n < 0) { &mut minus } else { &mut plus };
            add_shifted(side, product, 128 + parts.exponent.abs_diff(low) as usize);
        }
    }
    let negative = plus.iter().rev().lt(minus.iter().rev());
    let (mut sum, less) = if negative { (minus, plus) } else { (plus, minus) };
    subtract(&mut sum, &less);
    let rest = divide(&mut sum, total);
    let Some(top) = sum.iter().rposition(|limb| *limb != 0) else {
        return 0.0;
    };
    assert!(top > 0, "a quotient has more than 64 bits");
    let quotient = u128::from(sum[top]) << 64 | u128::from(sum[top - 1]);
    let inexact = rest != 0 || sum[..top - 1].iter().any(|limb| *limb != 0);
    round::<T>(negative, quotient, low - 128 + 64 * (top as i32 - 1), inexact)
}

/// A finite `f64` as `mantissa * 2^exponent`, sign apart.
struct Parts {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

impl Parts {
    fn of(value: f64) -> Self {
        let bits = value.to_bits();
        let field = (bits >> (PRECISION - 1)) as i32 & 0x7ff;
        let fraction = bits & ((1 << (PRECISION - 1)) - 1);
        let hidden = u64::from(field != 0) << (PRECISION - 1);
        Self {
            negative: value.is_sign_negative(),
            mantissa: fraction | hidden,
            exponent: EXPONENT_MIN + (field - 1).max(0),
        }
    }
}

/// `limbs += value << shift`, least limb first.
fn add_shifted(limbs: &mut [u64], value: u128, shift: usize) {
    let (word, bit) = (shift / 64, shift % 64);
    let low = value << bit;
    let high = if bit == 0 { 0 } else { (value >> (128 - bit)) as u64 };
    let mut carry = false;
    for (index, part) in [low as u64, (low >> 64) as u64, high].into_iter().enumerate() {
        carry = add_limb(&mut limbs[word + index], part, carry);
    }
    for limb in &mut limbs[word + 3..] {
        if !carry {
            return;
        }
        carry = add_limb(limb, 0, carry);
    }
    assert!(!carry, "the accumulator has room for every sum");
}

fn add_limb(limb: &mut u64, part: u64, carry: bool) -> bool {
    let (sum, first) = limb.overflowing_add(part);
    let (sum, second) = sum.overflowing_add(u64::from(carry));
    *limb = sum;
    first || second
}

/// `limbs -= less`, where `less` is not the greater.
fn subtract(limbs: &mut [u64], less: &[u64]) {
    let mut borrow = false;
    for (limb, less) in limbs.iter_mut().zip(less) {
        let (difference, first) = limb.overflowing_sub(*less);
        let (difference, second) = difference.overflowing_sub(u64::from(borrow));
        *limb = difference;
        borrow = first || second;
    }
    assert!(!borrow, "the greater number is on the left");
}

/// `limbs /= divisor`; gives the rest.
fn divide(limbs: &mut [u64], divisor: u64) -> u64 {
    let divisor = u128::from(divisor);
    let mut rest = 0_u128;
    for limb in limbs.iter_mut().rev() {
        let dividend = rest << 64 | u128::from(*limb);
        *limb = (dividend / divisor) as u64;
        rest = dividend % divisor;
    }
    rest as u64
}

/// The `T` nearest to `quotient * 2^exponent`, ties to even, as the `f64` that it is exactly (or as
/// what rounds to infinity); `inexact` says that the true value lies a little above. The quotient
/// has more than [`PRECISION`] bits.
fn round<T: Element>(negative: bool, quotient: u128, exponent: i32, inexact: bool) -> f64 {
    let bits = (u128::BITS - quotient.leading_zeros()).cast_signed();
    let unit = (exponent + bits - T::PRECISION.cast_signed()).max(T::EXPONENT_MIN);
    let dropped = unit.abs_diff(exponent);
    let magnitude = if dropped > u128::BITS {
        0.0
    } else {
        let kept = quotient.checked_shr(dropped).unwrap_or(0);
        let rest = quotient - kept.checked_shl(dropped).unwrap_or(0);
        let half = 1_u128 << (dropped - 1);
        let up = rest > half || (rest == half && (inexact || kept % 2 == 1));
        (kept + u128::from(up)) as f64 * power_of_two(unit)
    };
    if negative { -magnitude } else { magnitude }
}

fn power_of_two(exponent: i32) -> f64 {
    if exponent > EXPONENT_MAX {
        return f64::INFINITY;
    }
    let above = exponent.abs_diff(EXPONENT_MIN);
    let subnormals = PRECISION - 2;
    if above <= subnormals {
        f64::from_bits(1 << above)
    } else {
        f64::from_bits(u64::from(above - subnormals) << (PRECISION - 1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn powers_of_two_are_powers_of_two() {
        assert_eq!(power_of_two(EXPONENT_MIN), f64::from_bits(1));
        assert_eq!(power_of_two(-1022), f64::MIN_POSITIVE);
        assert_eq!(power_of_two(-1023), f64::MIN_POSITIVE / 2.0);
        assert_eq!(power_of_two(0), 1.0);
        assert_eq!(power_of_two(971), f64::MAX - f64::MAX.next_down());
    }

    #[test]
    fn a_mean_is_rounded_once_and_to_even() {
        let mean = |terms: &[Term]| {
            let total: i128 = terms.iter().map(|(_, n)| n).sum();
            weighted_mean::<f64>(terms.iter().copied(), total as u64)
        };
        assert_eq!(mean(&[(1.0, 1), (0.0, 2)]), 1.0 / 3.0);
        assert_eq!(mean(&[(1e300, 1), (1.0, 1), (-1e300, 1)]), 1.0 / 3.0);
        assert_eq!(mean(&[(f64::MAX, 1 << 53), (f64::MAX, 1 << 53)]), f64::MAX);
        assert_eq!(mean(&[(f64::MAX, 3), (f64::MIN, 3)]), 0.0);
        let tiny = f64::from_bits(1);
        assert_eq!(mean(&[(tiny, 1), (0.0, 1)]), 0.0, "half a unit goes to even");
        assert_eq!(mean(&[(3.0 * tiny, 1), (0.0, 1)]), 2.0 * tiny, "one and a half goes to even");
        assert_eq!(mean(&[(tiny, 2), (0.0, 1)]), tiny);
        assert_eq!(mean(&[(tiny, 1), (f64::MAX, 1), (f64::MIN, 1)]), 0.0);
        assert_eq!(mean(&[(-tiny, 2), (f64::MAX, 1), (f64::MIN, 1)]), -0.0);
        let next = 1.0_f64.next_up();
        assert_eq!(mean(&[(1.0, 1), (next, 1)]), 1.0, "a tie goes to the even neighbour");
        assert_eq!(mean(&[(1.0, 1), (next, 1), (1e-300, 1), (-1e-300, 1)]), 0.5);
        let broken_tie = |by| mean(&[(1.0, 1), (next, 1), (by, 1), (0.0, 1)]);
        assert_eq!(broken_tie(1e-300), 0.5_f64.next_up(), "a hair above a tie goes up");
        assert_eq!(broken_tie(-1e-300), 0.5, "a hair below a tie goes down");
    }

    #[test]
    fn a_narrow_mean_is_rounded_once_too() {
        let mean = |terms: &[Term], total| weighted_mean::<f32>(terms.iter().copied(), total);
        let next = 1.0_f32.next_up();
        assert_eq!(mean(&[(1.0, 1), (f64::from(next), 1)], 2), 1.0, "a tie goes to even");
        let hair = f64::from(f32::from_bits(1));
        assert_eq!(mean(&[(1.0, 1), (f64::from(next), 1), (hair, 1)], 2), next, "a hair above");
        assert_eq!(mean(&[(hair, 1)], 2), 0.0);
        assert_eq!(mean(&[(hair, 3)], 2), 2.0 * f32::from_bits(1));
        assert_eq!(mean(&[(hair, 1)], u64::MAX), 0.0);
        let max = f64::from(f32::MAX);
        assert_eq!(mean(&[(max, u64::MAX.into())], u64::MAX), f32::MAX);
        assert_eq!(mean(&[(max, 1), (-max, -1)], 1), f32::INFINITY);
        assert_eq!(mean(&[(max, 1), (max, -1)], 1), 0.0);
        assert_eq!(weighted_mean::<f64>([(f64::MAX, 4)].into_iter(), 1), f64::INFINITY);
    }

    #[test]
    fn a_term_reaches_into_the_last_limb() {
        let far_apart = [(3.418_717_214_284_026_7e158, 1), (4.030_228_012_768_792e-131, 1)];
        assert_eq!(
            weighted_mean::<f64>(far_apart.into_iter(), 2),
            3.418_717_214_284_026_7e158 / 2.0
        );
        for spread in 0..=2045 {
            let (high, low) = (power_of_two(971), power_of_two(971 - spread));
            let terms = [(high, 1 << 53), (low, 1)];
            let mean = weighted_mean::<f64>(terms.into_iter(), (1 << 53) + 1);
            assert!((low..=high).contains(&mean), "{spread}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn both_accumulators_agree(
            terms in prop::collection::vec((-1e3..1e3, 1..1_i128 << 20), 1..12),
        ) {
            let total = terms.iter().map(|(_, n)| *n as u64).sum();
            let exponent = |term: &Term| Parts::of(term.0).exponent;
            let low = terms.iter().map(exponent).min().unwrap();
            let high = terms.iter().map(exponent).max().unwrap();
            let bits = high.abs_diff(low) + 53 + 64;
            prop_assume!(high - low < 46);
            prop_assert_eq!(
                mean_short::<f64>(terms.iter().copied(), low, total).to_bits(),
                mean_long::<f64>(terms.iter().copied(), low, bits, total).to_bits()
            );
        }

        /// Eighths are exact in `f64`, and so are their weighted sums: the processor's own
        /// division is then the correctly rounded answer.
        #[test]
        fn the_mean_is_correctly_rounded(
            terms in prop::collection::vec((-1_000_000..1_000_000_i32, 1..1_u32 << 20), 1..12),
            far in any::<bool>(),
        ) {
            let total: u64 = terms.iter().map(|(_, n)| u64::from(*n)).sum();
            let sum: i64 = terms.iter().map(|(w, n)| i64::from(*w) * i64::from(*n)).sum();
            let mut eighths: Vec<Term> =
                terms.iter().map(|(w, n)| (f64::from(*w) / 8.0, i128::from(*n))).collect();
            let mut all = total;
            if far {
                eighths.extend([(f64::MAX, 1), (f64::MIN, 1)]);
                all += 2;
            }
            let expected = sum as f64 / 8.0 / all as f64;
            let narrow: f32 = weighted_mean(eighths.iter().copied(), all);
            prop_assert_eq!(weighted_mean::<f64>(eighths.into_iter(), all), expected);
            // A tie of `f32` that is none of the exact quotient would be a double rounding.
            prop_assert!((f64::from(narrow) - expected).abs() <= f64::from(narrow.abs().next_up() - narrow.abs()));
        }
    }
}
