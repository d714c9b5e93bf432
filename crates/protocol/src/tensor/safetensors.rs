//! The safetensors format: a header in JSON, then the numbers of all tensors one after the other.
//!
//! ```text
//! u64 header length | {"__metadata__":{..},"w":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}} | data
//! ```
//! Read strictly: every byte of the data belongs to exactly one tensor, no name stands twice, and
//! the header has at most [`HEADER_LEN_MAX`] bytes. Nothing of the data is copied. Written, the
//! tensors stand in the order of their names: the data are the canonical bytes.
//! (Format: <https://github.com/huggingface/safetensors>; its own reader is held against this one
//! in the tests. It takes headers of 100 MB, and the last of two tensors of one name.)

mod header;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{DType, Tensor, Tensors};
pub use header::{Header, Span};

/// Longest header, in bytes.
pub const HEADER_LEN_MAX: usize = 1 << 20;

/// The name in the header that is no tensor's.
pub(crate) const METADATA: &str = "__metadata__";

/// Bytes before the header.
const PREFIX_LEN: usize = 8;

/// Strings that travel beside the tensors.
pub type Metadata = BTreeMap<String, String>;

/// A file, taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Safetensors {
    pub metadata: Metadata,
    pub tensors: Tensors,
}

/// Why some bytes are no safetensors file that is taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SafetensorsError {
    #[error("{len} bytes are too few for a safetensors file")]
    Short { len: u64 },
    #[error("the header claims {header_len} bytes, at most {HEADER_LEN_MAX} are taken")]
    HeaderTooLong { header_len: u64 },
    #[error("the header claims {header_len} bytes, but the file ends after {len}")]
    HeaderCut { header_len: u64, len: u64 },
    #[error("header: {0}")]
    Header(String),
    #[error("tensor {name:?}: type {dtype:?} is not taken; F64, F32, F16, BF16 and I8 are")]
    Type { name: String, dtype: String },
    #[error("tensor {name:?}: {dtype} of shape {shape:?} does not fill bytes {begin} to {end}")]
    Size { name: String, dtype: DType, shape: Vec<usize>, begin: u64, end: u64 },
    #[error("tensor {name:?} begins at byte {begin} of the data, but {expected} is the next one")]
    Place { name: String, begin: u64, expected: u64 },
    #[error("the tensors take {expected} bytes of data, {found} are there")]
    DataLen { expected: u64, found: u64 },
    #[error("{0}")]
    Scale(String),
}

/// Takes a file apart; the tensors are slices of it.
pub fn read(file: &Bytes) -> Result<Safetensors, SafetensorsError> {
    let header = Header::read(file, file.len() as u64)?;
    let data = file.slice(header.data_start()..);
    let tensors = header.spans.into_iter().map(|(name, span)| {
        let Span { slot, begin, end } = span;
        let tensor = Tensor::typed(slot, data.slice(begin..end));
        (name, tensor.expect("a span has the length of its type and shape"))
    });
    let tensors: Tensors = tensors.collect();
    match tensors.scale_error() {
        Some(what) => Err(SafetensorsError::Scale(what)),
        None => Ok(Safetensors { metadata: header.metadata, tensors }),
    }
}

/// A file of these tensors and strings.
pub fn write(tensors: &Tensors, metadata: &Metadata) -> Bytes {
    let mut file = Header::of(&tensors.schema(), metadata.clone()).write();
    file.reserve_exact(tensors.byte_len());
    tensors.iter().for_each(|(_, tensor)| file.extend_from_slice(tensor.data()));
    file.into()
}
