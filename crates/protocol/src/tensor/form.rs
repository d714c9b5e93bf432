//! The two forms of a message that carries tensors.

use std::fmt;

/// How tensors travel.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Text: for small models, and for reading by eye.
    #[default]
    Json,
    /// One safetensors file; the other fields are strings in its metadata.
    Safetensors,
}

impl Form {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Json, Self::Safetensors];

    /// The form of a payload. JSON begins with `{`; a safetensors file begins with the length of
    /// its header, whose upper four bytes are zero, as no byte of a text is.
    pub fn of(payload: &[u8]) -> Self {
        if payload.get(4..8) == Some(&[0; 4]) { Self::Safetensors } else { Self::Json }
    }

    /// The word for it, which is also how its files end.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Safetensors => "safetensors",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
