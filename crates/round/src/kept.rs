//! The numbers of a counted update, held until its round is aggregated.
//!
//! Small ones are held in memory beside their durable copy, within [`crate::Rules::kept_len_max`];
//! those that came in pieces stay in the shell's directory of blobs.

use bytes::Bytes;
use protocol::{Digest, Schema, Tensors, tensor::ShapeError};
use serde::{Deserialize, Serialize};

use crate::Rounds;

/// Where the numbers of one update are. Cloning shares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The canonical bytes of the update's tensors (see [`Tensors::canonical`]), in the types of
    /// the round's base model.
    Here(Bytes),
    /// A safetensors file that holds the tensors of the base model, in its types.
    Stored(StoredBlob),
}

/// A blob in the shell's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBlob {
    pub sha256: Digest,
    pub bytes: u64,
}

impl Rounds {
    /// Bytes of updates that may still be held in memory.
    pub(crate) const fn room(&self) -> u64 {
        self.rules.kept_len_max.saturating_sub(self.kept_len)
    }
}

impl Kept {
    pub(crate) fn of(tensors: &Tensors) -> Self {
        Self::Here(tensors.canonical())
    }

    /// What it takes of memory, in bytes.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Here(bytes) => bytes.len() as u64,
            Self::Stored(_) => 0,
        }
    }

    pub(crate) const fn stored(&self) -> Option<StoredBlob> {
        match self {
            Self::Here(_) => None,
            Self::Stored(blob) => Some(*blob),
        }
    }

    /// The tensors, which share the bytes, if they are in memory; `schema` is that of the round's
    /// base model.
    pub fn tensors(&self, schema: &Schema) -> Option<Result<Tensors, ShapeError>> {
        match self {
            Self::Here(bytes) => Some(Tensors::from_canonical(schema, bytes)),
            Self::Stored(_) => None,
        }
    }
}
