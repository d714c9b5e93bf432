//! The numbers of a counted update, held until its round is aggregated.
//!
//! This is the one place that knows that they are held in memory beside their durable copy; their
//! total is bounded by [`crate::Rules::kept_len_max`].

use bytes::Bytes;
use protocol::Tensors;

const NUMBER_LEN: usize = size_of::<f64>();

/// Flattened values, little-endian. Cloning shares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept(Bytes);

impl Kept {
    pub(crate) fn of(tensors: &Tensors) -> Self {
        let values = tensors.flatten();
        Self(values.into_iter().flat_map(f64::to_le_bytes).collect())
    }

    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The values, in the order of [`Tensors::flatten`].
    pub fn values(&self) -> Vec<f64> {
        let (numbers, _) = self.0.as_chunks::<NUMBER_LEN>();
        numbers.iter().map(|number| f64::from_le_bytes(*number)).collect()
    }
}
