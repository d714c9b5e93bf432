//! The exponential and the logarithm out of additions, multiplications and divisions alone.
//!
//! Every machine rounds those alike, but each C library has an `exp` of its own: with these, a step
//! gives the same bits in the sandbox and outside of it, on every processor. Both follow fdlibm
//! (Sun Microsystems, 1993: `e_exp.c` and `e_log.c`), whose error stays below 1 ulp.

#![allow(clippy::excessive_precision, reason = "the constants stand as they were published")]

const LN2_HIGH: f64 = 6.931_471_803_691_238_164_90e-01;
const LN2_LOW: f64 = 1.908_214_929_270_587_700_02e-10;
/// 1.5 * 2^52: added and taken away again, it rounds to a whole number.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// `e^x`; 0 below where that is smallest, infinity above where it is largest.
#[inline(always)]
pub(crate) fn exp(x: f64) -> f64 {
    const P: [f64; 5] = [
        1.666_666_666_666_660_190_37e-01,
        -2.777_777_777_701_559_338_42e-03,
        6.613_756_321_437_934_361_17e-05,
        -1.653_390_220_546_525_153_90e-06,
        4.138_136_797_057_238_460_39e-08,
    ];
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let (high, low) = (x - k * LN2_HIGH, k * LN2_LOW);
    let r = high - low;
    let t = r * r;
    let c = r - t * (P[0] + t * (P[1] + t * (P[2] + t * (P[3] + t * P[4]))));
    let y = 1.0 - ((low - (r * c) / (2.0 - c)) - high);
    // The whole number stands in the last bits of what was rounded. In two halves, since 2^k alone
    // may be beyond the largest or the smallest number.
    let k = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let half = (k.wrapping_add(2048) >> 1).wrapping_sub(1024);
    let y = y * power_of_2(half) * power_of_2(k.wrapping_sub(half));
    // Chosen last, so that nothing branches and lanes stay together.
    let y = if x < -745.133_219_101_941_108_42 { 0.0 } else { y };
    if x > 709.782_712_893_383_973_096 { f64::INFINITY } else { y }
}

/// The natural logarithm of a positive, normal number.
#[inline(always)]
pub(crate) fn ln(x: f64) -> f64 {
    const L: [f64; 7] = [
        6.666_666_666_666_735_130e-01,
        3.999_999_999_940_941_908e-01,
        2.857_142_874_366_239_149e-01,
        2.222_219_843_214_978_396e-01,
        1.818_357_216_161_805_012e-01,
        1.531_383_769_920_937_332e-01,
        1.479_819_860_511_658_591e-01,
    ];
    if !(f64::MIN_POSITIVE..=f64::MAX).contains(&x) {
        return x.ln();
    }
    // x = 2^k * (1 + f), with 1 + f from sqrt(1/2) to sqrt(2).
    let bits = x.to_bits();
    let mut k = (bits >> 52) as i64 - 1023;
    let mut mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        k += 1;
    }
    let (f, k) = (mantissa - 1.0, k as f64);
    let s = f / (2.0 + f);
    let (z, half) = (s * s, 0.5 * f * f);
    let w = z * z;
    let even = w * (L[1] + w * (L[3] + w * L[5]));
    let odd = z * (L[0] + w * (L[2] + w * (L[4] + w * L[6])));
    k * LN2_HIGH - ((half - (s * (half + (even + odd)) + k * LN2_LOW)) - f)
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + exp(-x))
}

/// The hyperbolic tangent, by way of the [`sigmoid`]; small arguments lose relative precision.
#[inline(always)]
pub(crate) fn tanh(x: f64) -> f64 {
    2.0 * sigmoid(2.0 * x) - 1.0
}

/// `k` from -1022 to 1023, in two's complement.
#[inline(always)]
fn power_of_2(k: u64) -> f64 {
    f64::from_bits(k.wrapping_add(1023) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ulps(x: f64, y: f64) -> u64 {
        x.to_bits().abs_diff(y.to_bits())
    }

    #[test]
    fn they_are_within_an_ulp_or_two_of_the_library() {
        for step in -700_000..=700_000 {
            let x = f64::from(step) * 1e-3 + 1e-7;
            assert!(ulps(exp(x), x.exp()) <= 1, "exp({x}) is {} not {}", exp(x), x.exp());
            let y = x.exp();
            assert!(ulps(ln(y), y.ln()) <= 2 || (ln(y) - y.ln()).abs() < 1e-16, "ln({y})");
        }
        for step in 1..100_000 {
            let x = f64::from(step) * 1e-4;
            assert!(ulps(ln(x), x.ln()) <= 2 || (ln(x) - x.ln()).abs() < 1e-16, "ln({x})");
            assert!((tanh(x - 5.0) - (x - 5.0).tanh()).abs() < 1e-15, "tanh({x})");
        }
    }

    #[test]
    fn the_ends_are_what_they_are() {
        assert_eq!((exp(0.0), exp(-1e300), exp(1e300)), (1.0, 0.0, f64::INFINITY));
        assert_eq!((exp(f64::NEG_INFINITY), exp(f64::INFINITY)), (0.0, f64::INFINITY));
        assert!(exp(f64::NAN).is_nan() && ln(f64::NAN).is_nan() && sigmoid(f64::NAN).is_nan());
        assert_eq!((ln(1.0), ln(f64::INFINITY), ln(0.0)), (0.0, f64::INFINITY, f64::NEG_INFINITY));
        assert_eq!((sigmoid(-1e9), sigmoid(0.0), sigmoid(1e9)), (0.0, 0.5, 1.0));
        assert!(exp(-745.0) > 0.0 && exp(709.78).is_finite());
    }
}
