//! The types of number that are aggregated, and how their bytes are looked at.
//!
//! Narrower types (f16, bf16, scaled i8) are widened to `f32` by whoever reads them, exactly, and
//! the result is rounded to them by what is in [`crate::narrow`].

use std::{
    fmt::Debug,
    ops::{Add, Mul, Sub},
};

use crate::linear::Kernel;

/// A number of a model: `f32` or `f64`, and no other.
pub trait Element:
    Kernel
    + Copy
    + Debug
    + Default
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + 'static
{
    const ZERO: Self;
    /// Bytes of one.
    const BYTES: usize;
    /// Significant bits, the hidden one with them.
    const PRECISION: u32;
    /// The exponent of the smallest subnormal.
    const EXPONENT_MIN: i32;
    /// How it is named in the byte form of a partial sum.
    const NAME: &'static str;

    fn to_f64(self) -> f64;
    /// To nearest, ties to even.
    fn from_f64(value: f64) -> Self;
    /// As [`Self::from_f64`], but no further than the greatest finite element.
    fn saturated(value: f64) -> Self;
    fn finite(self) -> bool;
    fn from_le(bytes: &[u8]) -> Self;
    fn put_le(self, bytes: &mut Vec<u8>);
    /// What an element means whose little-endian bytes were put in its place as they were.
    fn reread_le(self) -> Self;
}

macro_rules! element {
    ($t:ty, $precision:literal, $exponent_min:literal) => {
        impl Element for $t {
            const ZERO: Self = 0.0;
            const BYTES: usize = size_of::<$t>();
            const PRECISION: u32 = $precision;
            const EXPONENT_MIN: i32 = $exponent_min;
            const NAME: &'static str = stringify!($t);

            #[inline(always)]
            fn to_f64(self) -> f64 {
                self.into()
            }

            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $t
            }

            #[inline(always)]
            fn saturated(value: f64) -> Self {
                value.clamp(<$t>::MIN.into(), <$t>::MAX.into()) as $t
            }

            #[inline(always)]
            fn finite(self) -> bool {
                self.is_finite()
            }

            fn from_le(bytes: &[u8]) -> Self {
                <$t>::from_le_bytes(bytes.try_into().expect("as many bytes as an element has"))
            }

            fn put_le(self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }

            #[inline(always)]
            fn reread_le(self) -> Self {
                <$t>::from_le_bytes(self.to_ne_bytes())
            }
        }
    };
}

element!(f32, 24, -149);
element!(f64, 53, -1074);

/// Little-endian bytes as elements, where they lie, if they are aligned and so is the machine.
pub(crate) fn view<T: Element>(bytes: &[u8]) -> Option<&[T]> {
    if cfg!(target_endian = "big") {
        return None;
    }
    #[expect(unsafe_code, reason = "every pattern of bits is a float, and `align_to` aligns")]
    let (before, elements, after) = unsafe { bytes.align_to::<T>() };
    (before.is_empty() && after.is_empty()).then_some(elements)
}

/// Elements as the bytes that they lie in, to be read into.
pub(crate) fn bytes_mut<T: Element>(elements: &mut [T]) -> &mut [u8] {
    #[expect(unsafe_code, reason = "every pattern of bits is a float, and bytes need no alignment")]
    let (before, bytes, after) = unsafe { elements.align_to_mut::<u8>() };
    assert!(before.is_empty() && after.is_empty(), "bytes fit between any two bytes");
    bytes
}
