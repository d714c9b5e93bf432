//! Named tensors: typed numbers and their shapes, as JSON and as safetensors.
//!
//! A tensor's numbers are bytes, little-endian and row-major, and stay where they came in: a slice
//! of the message or the file. What is read is limited, so that a hostile payload costs no more
//! memory than an honest one of its size. Numbers survive every round trip to the last bit.

mod control;
mod dtype;
mod form;
mod named;
mod number;
mod read;
mod scale;
mod schema;
mod write;

pub mod safetensors;

use bytes::Bytes;

pub use control::{CONTROL_PREFIX, controlled};
pub use dtype::{DType, DTypeError};
pub use form::Form;
pub use named::Tensors;
pub(crate) use read::insert;
pub use scale::SUFFIX as SCALE_SUFFIX;
pub use schema::{Schema, Slot};

/// Deepest nesting of arrays.
pub const RANK_MAX: usize = 16;
/// Most tensors in one model.
pub const TENSORS_MAX: usize = 4096;
/// Longest name, in bytes.
pub const NAME_LEN_MAX: usize = 256;

/// One tensor; a scalar has an empty shape. Cloning shares its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    slot: Slot,
    data: Bytes,
}

/// Numbers that do not fill a shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} values do not fill the shape {shape:?}")]
pub struct ShapeError {
    shape: Vec<usize>,
    found: usize,
}

impl Tensor {
    /// A tensor of `F64`, of `shape`, from row-major `values`.
    pub fn new(shape: Vec<usize>, values: Vec<f64>) -> Result<Self, ShapeError> {
        Self::rounded(Slot { dtype: DType::F64, shape }, &values)
    }

    /// A tensor of `F32`, of `shape`, from row-major `values`.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Result<Self, ShapeError> {
        let data = values.iter().copied().flat_map(f32::to_le_bytes).collect();
        Self::typed(Slot { dtype: DType::F32, shape }, data)
    }

    /// A tensor of this type and shape: each of `values` is rounded once.
    pub fn rounded(slot: Slot, values: &[f64]) -> Result<Self, ShapeError> {
        let data = number::narrow(slot.dtype, values);
        Self::typed(slot, data)
    }

    /// A tensor of this type and shape from its bytes, little-endian and row-major.
    pub fn typed(slot: Slot, data: Bytes) -> Result<Self, ShapeError> {
        if slot.checked_byte_len() != Some(data.len()) || slot.shape.len() > RANK_MAX {
            return Err(ShapeError { found: data.len() / slot.dtype.size(), shape: slot.shape });
        }
        Ok(Self { slot, data })
    }

    /// A single number, of `F64`.
    pub fn scalar(value: f64) -> Self {
        let slot = Slot { dtype: DType::F64, shape: vec![] };
        Self { slot, data: number::narrow(DType::F64, &[value]) }
    }

    /// Type and shape.
    pub const fn slot(&self) -> &Slot {
        &self.slot
    }

    /// The type of its numbers.
    pub const fn dtype(&self) -> DType {
        self.slot.dtype
    }

    /// Extent of each dimension, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.slot.shape
    }

    /// The numbers as bytes, little-endian and row-major.
    pub const fn data(&self) -> &Bytes {
        &self.data
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.data.len() / self.dtype().size()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The numbers, exactly; of `I8` without their scale.
    pub fn to_f64(&self) -> Vec<f64> {
        let mut values = Vec::with_capacity(self.len());
        number::widen(self.dtype(), &self.data, &mut values);
        values
    }

    /// The numbers as `f32`: exactly, but for `F64`, which is rounded.
    pub fn to_f32(&self) -> Vec<f32> {
        number::to_f32(self.dtype(), &self.data)
    }
}

impl ShapeError {
    fn of_schema(schema: &Schema, bytes: usize) -> Self {
        Self { shape: vec![schema.byte_len()], found: bytes }
    }
}
