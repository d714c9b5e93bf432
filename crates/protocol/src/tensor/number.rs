//! From bytes to numbers and back: widening is exact, narrowing rounds once, to nearest, ties to
//! even.

use bytes::Bytes;
use half::{bf16, f16};

use super::DType;

/// The numbers in `data`, exactly.
pub(super) fn widen(dtype: DType, data: &[u8], out: &mut Vec<f64>) {
    match dtype {
        DType::F64 => out.extend(data.as_chunks().0.iter().map(|it| f64::from_le_bytes(*it))),
        DType::F32 => out.extend(f32s(data).map(f64::from)),
        DType::F16 => {
            out.extend(data.as_chunks().0.iter().map(|it| f16::from_le_bytes(*it).to_f64()));
        }
        DType::BF16 => {
            out.extend(data.as_chunks().0.iter().map(|it| bf16::from_le_bytes(*it).to_f64()));
        }
        DType::I8 => out.extend(data.iter().map(|it| f64::from(it.cast_signed()))),
    }
}

/// The numbers in `data` as `f32`: exact but for `F64`, which is rounded.
pub(super) fn to_f32(dtype: DType, data: &[u8]) -> Vec<f32> {
    match dtype {
        DType::F64 => data.as_chunks().0.iter().map(|it| f64::from_le_bytes(*it) as f32).collect(),
        DType::F32 => f32s(data).collect(),
        DType::F16 => {
            data.as_chunks().0.iter().map(|it| f16::from_le_bytes(*it).to_f32()).collect()
        }
        DType::BF16 => {
            data.as_chunks().0.iter().map(|it| bf16::from_le_bytes(*it).to_f32()).collect()
        }
        DType::I8 => data.iter().map(|it| f32::from(it.cast_signed())).collect(),
    }
}

pub(super) fn f32s(data: &[u8]) -> impl Iterator<Item = f32> {
    data.as_chunks().0.iter().map(|it| f32::from_le_bytes(*it))
}

/// Numbers as bytes of `dtype`. What is too large becomes an infinity; for `I8`, which has none,
/// the nearest end.
pub(super) fn narrow(dtype: DType, values: &[f64]) -> Bytes {
    let mut data = Vec::with_capacity(values.len() * dtype.size());
    match dtype {
        DType::F64 => values.iter().for_each(|it| data.extend_from_slice(&it.to_le_bytes())),
        DType::F32 => {
            values.iter().for_each(|it| data.extend_from_slice(&(*it as f32).to_le_bytes()));
        }
        DType::F16 => {
            let narrow = |it: &f64| f16::from_f32(to_odd(*it)).to_le_bytes();
            values.iter().for_each(|it| data.extend_from_slice(&narrow(it)));
        }
        DType::BF16 => {
            let narrow = |it: &f64| bf16::from_f32(to_odd(*it)).to_le_bytes();
            values.iter().for_each(|it| data.extend_from_slice(&narrow(it)));
        }
        DType::I8 => data.extend(values.iter().map(|it| whole(*it).cast_unsigned())),
    }
    data.into()
}

/// The nearest whole number within the range of an `i8`.
pub(super) const fn whole(value: f64) -> i8 {
    value.round_ties_even() as i8
}

/// `value` as an `f32` with an odd last bit wherever it is not exact: rounding that again, to a
/// shorter type, is the same as rounding once (Boldo and Melquiond, "Emulation of a FMA and
/// correctly rounded sums: proved algorithms using rounding to odd", 2008).
fn to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    if back == value || !nearest.is_finite() {
        return nearest;
    }
    let away = back.abs() > value.abs();
    f32::from_bits((nearest.to_bits() - u32::from(away)) | 1)
}

/// Whether all numbers in `data` are finite.
pub(super) fn all_finite(dtype: DType, data: &[u8]) -> bool {
    match dtype {
        DType::F64 => data.as_chunks().0.iter().all(|it| f64::from_le_bytes(*it).is_finite()),
        DType::F32 => f32s(data).all(f32::is_finite),
        DType::F16 => data.as_chunks().0.iter().all(|it| f16::from_le_bytes(*it).is_finite()),
        DType::BF16 => data.as_chunks().0.iter().all(|it| bf16::from_le_bytes(*it).is_finite()),
        DType::I8 => true,
    }
}
