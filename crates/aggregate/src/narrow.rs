//! The 16-bit types of models, to `f32` and back: widening is exact, narrowing rounds to nearest,
//! ties to even. A result is rounded to `f32` first and then to these.

/// bf16: the upper half of an `f32`.
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// What is too large becomes infinite; NaN stays NaN.
pub fn bf16_from_f32(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x0040;
    }
    let even = bits >> 16 & 1;
    ((bits + 0x7fff + even) >> 16) as u16
}

/// f16 of IEEE 754: five bits of exponent, ten of fraction.
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let (exponent, fraction) = (u32::from(bits >> 10 & 0x1f), u32::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => (fraction as f32 * SMALLEST_F16).to_bits(),
        0x1f => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// What is too large becomes infinite; NaN stays NaN.
pub fn f16_from_f32(value: f32) -> u16 {
    let sign = (value.to_bits() >> 16) as u16 & 0x8000;
    let bits = value.to_bits() & 0x7fff_ffff;
    let magnitude = if value.is_nan() {
        0x7e00
    } else if bits >= 0x4780_0000 {
        0x7c00
    } else if bits < 0x3880_0000 {
        // Below the normal numbers of f16 an addition rounds at the right bit.
        let shifted = f32::from_bits(bits) + 0.5;
        (shifted.to_bits() - 0.5_f32.to_bits()) as u16
    } else {
        let even = bits >> 13 & 1;
        ((bits - (112 << 23) + 0xfff + even) >> 13) as u16
    };
    sign | magnitude
}

/// `2^-24`.
const SMALLEST_F16: f32 = 5.960_464_5e-8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back() {
        for bits in 0..=u16::MAX {
            for (wide, narrow) in [
                (f16_to_f32(bits), f16_from_f32 as fn(f32) -> u16),
                (bf16_to_f32(bits), bf16_from_f32),
            ] {
                if wide.is_nan() {
                    assert_eq!(narrow(wide) & 0x7c00, 0x7c00);
                } else {
                    assert_eq!(narrow(wide), bits, "{wide}");
                }
            }
        }
    }

    /// Between two neighbours: what is nearer, and half way the even one.
    #[test]
    fn rounding_is_to_nearest_and_even() {
        type Way = (fn(u16) -> f32, fn(f32) -> u16, u16);
        let ways: [Way; 2] =
            [(f16_to_f32, f16_from_f32, 0x7bff), (bf16_to_f32, bf16_from_f32, 0x7f7e)];
        for (widen, narrow, last) in ways {
            for bits in 0..last {
                let (low, high) = (f64::from(widen(bits)), f64::from(widen(bits + 1)));
                let middle = f64::midpoint(low, high) as f32;
                if f64::from(middle) != f64::midpoint(low, high) {
                    continue;
                }
                assert_eq!(narrow(middle), bits + bits % 2, "{middle}");
                assert_eq!(narrow(middle.next_down()), bits, "{middle}");
                assert_eq!(narrow(middle.next_up()), bits + 1, "{middle}");
            }
        }
        assert_eq!(f16_to_f32(f16_from_f32(65519.0)), 65504.0);
        assert_eq!(f16_to_f32(f16_from_f32(65520.0)), f32::INFINITY);
        assert_eq!(f16_from_f32(-1e-9), 0x8000);
    }
}
