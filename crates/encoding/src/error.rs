//! What can go wrong: with the name of an encoding, with a model that it shall serve, on the way
//! out, and on the way in.

use std::io;

use protocol::{
    DType, Rejection,
    tensor::{NAME_LEN_MAX, TENSORS_MAX, safetensors::SafetensorsError},
};

use crate::spec::SPEC_LEN_MAX;

/// Why a text names no encoding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("an encoding names at least one stage; leave it out to have none")]
    Empty,
    #[error("an encoding has at most {SPEC_LEN_MAX} bytes, not {len}")]
    TooLong { len: usize },
    #[error("there is no stage {found:?}; there are {stages}")]
    Unknown { found: String, stages: String },
    #[error("stage {stage} takes {takes}, not {found:?}")]
    Argument { stage: &'static str, takes: &'static str, found: String },
    #[error("stage {stage} works before {before}: write it before")]
    Order { stage: &'static str, before: &'static str },
    #[error("stages {other} and {stage} exclude one another")]
    Exclude { stage: &'static str, other: &'static str },
    #[error("stage {stage} stands twice")]
    Twice { stage: &'static str },
    #[error("stage {stage} needs {needs} before it")]
    Needs { stage: &'static str, needs: &'static str },
}

/// Why an encoding does not serve a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    #[error("tensor {name:?} is of I8, which no encoding takes")]
    Quantised { name: String },
    #[error("encoded, the model needs the name {name:?}, which one of its tensors has")]
    Name { name: String },
    #[error("encoded, tensor {of:?} needs a name of {len} bytes, at most {NAME_LEN_MAX} are taken")]
    LongName { of: String, len: usize },
    #[error("encoded, the model takes {found} tensors, at most {TENSORS_MAX} are taken")]
    Tensors { found: usize },
}

/// Why an update was not encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("value {place} of tensor {name:?} is not finite")]
    NotFinite { name: String, place: usize },
    #[error("value {place} of tensor {name:?} is too large for {dtype}")]
    Range { name: String, place: usize, dtype: DType },
    #[error("the header takes {len} bytes, at most {max} are taken")]
    Header { len: usize, max: usize },
    #[error("the update is not as its base model: {0}")]
    Shape(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why some bytes are no update in the encoding that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("not a safetensors file: {0}")]
    Safetensors(#[from] SafetensorsError),
    #[error("the round asks for encoding {asked:?}, the update is in {found:?}")]
    Encoding { asked: String, found: Option<String> },
    #[error("not a zlib stream: {0}")]
    Zlib(&'static str),
    #[error("more than {max} bytes, which is what a model of this schema can take")]
    TooLarge { max: u64 },
    #[error("{0}")]
    Shape(String),
    #[error("the index of tensor {name:?} {what}")]
    Index { name: String, what: &'static str },
    #[error("scale {block} is {found}")]
    Scale { block: usize, found: f32 },
    #[error("value {place} of tensor {name:?} is not finite")]
    NotFinite { name: String, place: usize },
    #[error(transparent)]
    Io(io::Error),
}

impl DecodeError {
    /// The word for it that its sender gets; none where the sender is not to blame.
    pub fn reason(&self) -> Option<Rejection> {
        match self {
            Self::Safetensors(_) | Self::Encoding { .. } | Self::Zlib(_) | Self::Index { .. } => {
                Some(Rejection::Malformed)
            }
            Self::Scale { found, .. } if found.is_finite() => Some(Rejection::Malformed),
            Self::Scale { .. } | Self::NotFinite { .. } => Some(Rejection::NotFinite),
            Self::TooLarge { .. } => Some(Rejection::TooLarge),
            Self::Shape(_) => Some(Rejection::Shape),
            Self::Schema(_) | Self::Io(_) => None,
        }
    }
}

/// A decoding error that went through a `Read` comes out as it went in.
impl From<io::Error> for DecodeError {
    fn from(why: io::Error) -> Self {
        why.downcast::<Self>().unwrap_or_else(Self::Io)
    }
}

impl From<DecodeError> for io::Error {
    fn from(why: DecodeError) -> Self {
        if let DecodeError::Io(why) = why { why } else { Self::other(why) }
    }
}
