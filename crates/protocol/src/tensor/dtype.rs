//! The types that the numbers of a tensor may have.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How one number lies in memory, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DType {
    /// IEEE 754 binary64; what the numbers of JSON are read as.
    F64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
    /// A whole number of -128 to 127, times the scale that stands beside its tensor.
    I8,
}

/// A type that is not in the list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("type {0:?} is not taken; F64, F32, F16, BF16 and I8 are")]
pub struct DTypeError(String);

impl DType {
    /// Every type, the widest first.
    pub const ALL: [Self; 5] = [Self::F64, Self::F32, Self::F16, Self::BF16, Self::I8];

    /// Bytes of one number.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::I8 => 1,
        }
    }

    /// The name in a safetensors header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I8 => "I8",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DType {
    type Err = DTypeError;

    fn from_str(text: &str) -> Result<Self, DTypeError> {
        let found = Self::ALL.into_iter().find(|dtype| dtype.as_str() == text);
        found.ok_or_else(|| DTypeError(text.chars().take(40).collect()))
    }
}
