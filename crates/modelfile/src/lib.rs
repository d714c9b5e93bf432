//! Model files as other programs write and read them: JSON, safetensors and NumPy's npz. Bytes in,
//! bytes out: it refuses to know where they lie.
//!
//! Numbers pass unchanged, bit by bit, in their types; what a format has no type for is refused by
//! the tensor's name and type, never converted in silence.

mod npy;
mod npz;

use std::{fmt, str::FromStr};

use bytes::Bytes;
use protocol::{
    DType, Form, ModelVersion, Schema, Slot, Tensors,
    message::{Model, ModelError},
    tensor::{
        SCALE_SUFFIX,
        safetensors::{self, SafetensorsError},
    },
};

/// How a model lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    Json,
    Safetensors,
    Npz,
}

/// A name that ends like no format that is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} ends in none of .json, .safetensors and .npz")]
pub struct FormatError(String);

/// Why a file holds no model that is taken, or a model cannot be such a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("not a JSON object of tensors: {0}")]
    Json(serde_json::Error),
    #[error("not a safetensors file: {0}")]
    Safetensors(#[from] SafetensorsError),
    #[error("{0}")]
    Model(#[from] ModelError),
    #[error("not an npz file: {0}")]
    Zip(#[from] zip::result::ZipError),
    #[error("not an npz file: {name:?}: {what}")]
    Npy { name: String, what: String },
    #[error("tensor {name:?}: NumPy's type {descr:?} is not taken; f8, f4 and f2 are")]
    NumPyType { name: String, descr: String },
    #[error(
        "tensor {name:?} is of {dtype}, which {format} has no type for; another type can be chosen"
    )]
    NoType { name: String, dtype: DType, format: FileFormat },
    #[error("tensor {name:?} is not finite, and a model has to be")]
    NotFinite { name: String },
    #[error("tensor {name:?} holds a number that is too large for {dtype}")]
    Overflow { name: String, dtype: DType },
    #[error("a tensor called {name:?} has no place in {format}")]
    Name { name: String, format: FileFormat },
    #[error("there are {count} tensors, at most {max} are taken")]
    Count { count: usize, max: usize },
    #[error("the numbers take more than {bytes_max} bytes")]
    TooLarge { bytes_max: u64 },
    #[error("{0}")]
    Cast(String),
    #[error("{0}")]
    Scale(String),
    #[error("it holds no tensor")]
    Empty,
}

impl FileFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Json, Self::Safetensors, Self::Npz];

    /// The format in which `bytes` are, by their first ones.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(b"PK") {
            return Self::Npz;
        }
        match Form::of(bytes) {
            Form::Json => Self::Json,
            Form::Safetensors => Self::Safetensors,
        }
    }

    /// The format that a file name ends in.
    pub fn of_name(name: &str) -> Result<Self, FormatError> {
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
        ending.parse().map_err(|_: FormatError| FormatError(name.to_owned()))
    }

    /// How its file names end.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Safetensors => "safetensors",
            Self::Npz => "npz",
        }
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FileFormat {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let found = Self::ALL.into_iter().find(|format| format.as_str() == text);
        found.ok_or_else(|| FormatError(text.to_owned()))
    }
}

/// The tensors of a file in any of the formats. They may take `bytes_max`, however small the file
/// is; a version that it claims is left out.
pub fn read(file: &Bytes, bytes_max: u64) -> Result<Tensors, FileError> {
    let tensors = match FileFormat::of(file) {
        FileFormat::Json => read_json(file)?,
        FileFormat::Safetensors => safetensors::read(file)?.tensors,
        FileFormat::Npz => npz::read(file, bytes_max)?,
    };
    if tensors.is_empty() {
        return Err(FileError::Empty);
    }
    if tensors.byte_len() as u64 > bytes_max {
        return Err(FileError::TooLarge { bytes_max });
    }
    match tensors.not_finite() {
        Some(name) => Err(FileError::NotFinite { name: name.to_owned() }),
        None => Ok(tensors),
    }
}

/// With a version or without one.
fn read_json(file: &[u8]) -> Result<Tensors, FileError> {
    match serde_json::from_slice::<Model>(file) {
        Ok(model) => Ok(model.tensors),
        Err(_) => serde_json::from_slice(file).map_err(FileError::Json),
    }
}

/// A file with these tensors; where the format has a place for it, with this version.
pub fn write(
    tensors: &Tensors,
    version: ModelVersion,
    format: FileFormat,
) -> Result<Bytes, FileError> {
    let model = |form| Model { version, tensors: tensors.clone(), form };
    match format {
        FileFormat::Json => {
            let lossy = tensors.iter().find(|(_, tensor)| tensor.dtype() == DType::I8);
            if let Some((name, tensor)) = lossy {
                let (name, dtype) = (name.to_owned(), tensor.dtype());
                return Err(FileError::NoType { name, dtype, format });
            }
            if tensors.get("version").is_some() {
                return Err(FileError::Name { name: "version".to_owned(), format });
            }
            Ok(model(Form::Json).write())
        }
        FileFormat::Safetensors => Ok(model(Form::Safetensors).write()),
        FileFormat::Npz => npz::write(tensors),
    }
}

/// The same numbers, each rounded once to `dtype`. Tensors of `I8` get a scale for each step of their
/// first dimension beside them; such scales are multiplied out before.
pub fn cast(tensors: &Tensors, dtype: DType) -> Result<Tensors, FileError> {
    let schema: Schema = tensors
        .dequantised()
        .schema()
        .iter()
        .flat_map(|(name, slot)| slots(name, slot, dtype))
        .collect();
    let cast = tensors.cast_to(&schema).map_err(FileError::Cast)?;
    match cast.not_finite() {
        Some(name) => Err(FileError::Overflow { name: name.to_owned(), dtype }),
        None => Ok(cast),
    }
}

fn slots(name: &str, slot: &Slot, dtype: DType) -> Vec<(String, Slot)> {
    let own = (name.to_owned(), Slot { dtype, shape: slot.shape.clone() });
    if dtype != DType::I8 {
        return vec![own];
    }
    let shape = slot.shape.first().copied().into_iter().filter(|_| slot.shape.len() > 1).collect();
    vec![own, (format!("{name}{SCALE_SUFFIX}"), Slot { dtype: DType::F32, shape })]
}
