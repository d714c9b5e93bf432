//! A model on the wire: its tensors and its version, as JSON or as a safetensors file.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::{Error as _, SerializeMap},
};

use crate::{
    Digest, Envelope, Form, Letter, ModelLine, ModelUri, ModelVersion, Tensor, Tensors, Topic,
    envelope::brief,
    tensor::{
        self,
        safetensors::{self, Metadata, Safetensors, SafetensorsError},
    },
};

const VERSION: &str = "version";

/// A global model. It travels to the model server on one topic, and from there on its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub version: ModelVersion,
    pub tensors: Tensors,
    /// How it came, and goes on.
    pub form: Form,
}

/// Why some bytes are no model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("not a model: {}", brief(.0))]
    Json(#[from] serde_json::Error),
    #[error("not a model: {0}")]
    Safetensors(#[from] SafetensorsError),
    #[error("not a model: version takes a whole number in the metadata, not {0:?}")]
    Version(Option<String>),
    #[error("not a model: tensor {0:?} is not finite")]
    NotFinite(String),
}

/// Which model is the newest, and how to check it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelLatest {
    pub version: ModelVersion,
    pub topic: ModelUri,
    pub sha256: Digest,
    pub bytes: u64,
    pub format: String,
}

impl Model {
    /// A model of JSON.
    pub const fn new(version: ModelVersion, tensors: Tensors) -> Self {
        Self { version, tensors, form: Form::Json }
    }

    /// Reads either form; tensors of a safetensors file are slices of `payload`.
    pub fn read(payload: &Bytes) -> Result<Self, ModelError> {
        match Form::of(payload) {
            Form::Json => Ok(serde_json::from_slice(payload)?),
            Form::Safetensors => Self::read_binary(payload),
        }
    }

    fn read_binary(payload: &Bytes) -> Result<Self, ModelError> {
        let Safetensors { metadata, tensors } = safetensors::read(payload)?;
        let version = metadata.get(VERSION);
        let Some(version) = version.and_then(|version| version.parse().ok()) else {
            let shown = version.map(|version| version.chars().take(40).collect());
            return Err(ModelError::Version(shown));
        };
        match tensors.not_finite() {
            Some(name) => Err(ModelError::NotFinite(name.to_owned())),
            None => Ok(Self { version: ModelVersion(version), tensors, form: Form::Safetensors }),
        }
    }

    /// The model as it travels, in its form.
    pub fn write(&self) -> Bytes {
        match self.form {
            Form::Json => serde_json::to_vec(self).expect("a model of JSON serializes").into(),
            Form::Safetensors => {
                let metadata = [(VERSION.to_owned(), self.version.to_string())];
                safetensors::write(&self.tensors, &Metadata::from(metadata))
            }
        }
    }
}

/// As the next model of the default line.
impl Letter for Model {
    fn topic(&self) -> Topic {
        Topic::ModelPublish { line: ModelLine::default() }
    }

    fn seal(&self) -> Envelope {
        Envelope { topic: self.topic(), payload: self.write() }
    }
}

impl Letter for ModelLatest {
    fn topic(&self) -> Topic {
        Topic::ModelLatest { line: self.topic.line.clone() }
    }
}

/// The form in JSON.
impl Serialize for Model {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.tensors.get(VERSION).is_some() {
            return Err(S::Error::custom("a model of JSON has no tensor called \"version\""));
        }
        let plain = self.tensors.dequantised();
        let mut map = serializer.serialize_map(Some(plain.len() + 1))?;
        for (name, tensor) in plain.iter() {
            map.serialize_entry(name, tensor)?;
        }
        map.serialize_entry(VERSION, &self.version)?;
        map.end()
    }
}

/// The form in JSON.
impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Model;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors with a version")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Model, A::Error> {
        let mut version = None;
        let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == VERSION {
                if version.replace(map.next_value()?).is_some() {
                    return Err(de::Error::duplicate_field(VERSION));
                }
            } else {
                let read = map.next_value()?;
                tensor::insert(&mut tensors, name, read)?;
            }
        }
        let version = version.ok_or_else(|| de::Error::missing_field(VERSION))?;
        Ok(Model::new(version, tensors.into_iter().collect()))
    }
}
