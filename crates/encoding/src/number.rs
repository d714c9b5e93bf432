//! From bytes to numbers and back: widening is exact, narrowing rounds once, to nearest, ties to
//! even.

use half::{bf16, f16};
use protocol::DType;

/// What values are read as: `f32`, or `f64`, which holds those of every type.
pub trait Element: Copy + Default + sealed::Sealed + 'static {
    /// Whether it holds the values of a tensor of this type.
    fn holds(dtype: DType) -> bool;
    fn from_f32(value: f32) -> Self;
    fn from_f64(value: f64) -> Self;
    fn to_f32(self) -> f32;
    fn to_f64(self) -> f64;
    fn finite(self) -> bool;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

macro_rules! element {
    ($t:ty, $holds:expr) => {
        impl Element for $t {
            fn holds(dtype: DType) -> bool {
                $holds(dtype)
            }
            #[inline(always)]
            fn from_f32(value: f32) -> Self {
                value.into()
            }
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn to_f32(self) -> f32 {
                self as f32
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self.into()
            }
            #[inline(always)]
            fn finite(self) -> bool {
                self.is_finite()
            }
        }
    };
}

element!(f32, |dtype| dtype != DType::F64);
element!(f64, |_| true);

/// The numbers in `data`, as many as `out` takes.
pub(crate) fn widen<T: Element>(dtype: DType, data: &[u8], out: &mut [T]) {
    assert_eq!(data.len(), out.len() * dtype.size(), "as many numbers as there is room for");
    match dtype {
        DType::F64 => fill(data, out, |it| T::from_f64(f64::from_le_bytes(it))),
        DType::F32 => fill(data, out, |it| T::from_f32(f32::from_le_bytes(it))),
        DType::F16 => fill(data, out, |it| T::from_f32(f16::from_le_bytes(it).to_f32())),
        DType::BF16 => fill(data, out, |it| T::from_f32(bf16::from_le_bytes(it).to_f32())),
        DType::I8 => fill(data, out, |it: [u8; 1]| T::from_f32(f32::from(i8::from_le_bytes(it)))),
    }
}

/// Appends `values` as bytes of `dtype`; what is too large for it becomes an infinity.
pub(crate) fn narrow<T: Element>(dtype: DType, values: &[T], out: &mut Vec<u8>) {
    match dtype {
        DType::F64 => append(values, out, |it| it.to_f64().to_le_bytes()),
        DType::F32 => append(values, out, |it| it.to_f32().to_le_bytes()),
        DType::F16 => append(values, out, |it| f16::from_f32(it.to_f32()).to_le_bytes()),
        DType::BF16 => append(values, out, |it| bf16::from_f32(it.to_f32()).to_le_bytes()),
        DType::I8 => append(values, out, |it| (it.to_f32() as i8).to_le_bytes()),
    }
}

/// Makes of each value what comes back from a tensor of this type.
pub(crate) fn round(dtype: DType, values: &mut [f32]) {
    match dtype {
        DType::F64 | DType::F32 | DType::I8 => {}
        DType::F16 => values.iter_mut().for_each(|it| *it = f16::from_f32(*it).to_f32()),
        DType::BF16 => values.iter_mut().for_each(|it| *it = bf16::from_f32(*it).to_f32()),
    }
}

/// The first number that is not finite.
pub(crate) fn not_finite<T: Element>(values: &[T]) -> Option<usize> {
    // Mostly there is none: the loop without a way out is the fast one.
    let finite = values.iter().fold(true, |finite, value| finite & value.finite());
    if finite { None } else { values.iter().position(|value| !value.finite()) }
}

fn fill<T, const N: usize>(data: &[u8], out: &mut [T], number: impl Fn([u8; N]) -> T) {
    for (out, bytes) in out.iter_mut().zip(data.as_chunks().0) {
        *out = number(*bytes);
    }
}

fn append<T: Copy, const N: usize>(values: &[T], out: &mut Vec<u8>, bytes: impl Fn(T) -> [u8; N]) {
    let from = out.len();
    out.resize(from + values.len() * N, 0);
    for (out, value) in out[from..].as_chunks_mut().0.iter_mut().zip(values) {
        *out = bytes(*value);
    }
}
