//! A model on the wire: its tensors at top level, and its version.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor},
    ser::SerializeMap,
};

use crate::{Digest, Letter, ModelUri, ModelVersion, Tensor, Tensors, Topic, tensor};

/// A global model. It travels to the model server on one topic, and from there on its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub version: ModelVersion,
    pub tensors: Tensors,
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

impl Letter for Model {
    fn topic(&self) -> Topic {
        Topic::ModelPublish
    }
}

impl Letter for ModelLatest {
    fn topic(&self) -> Topic {
        Topic::ModelLatest
    }
}

impl Serialize for Model {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.tensors.len() + 1))?;
        for (name, tensor) in self.tensors.iter() {
            map.serialize_entry(name, tensor)?;
        }
        map.serialize_entry("version", &self.version)?;
        map.end()
    }
}

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
            if name == "version" {
                if version.replace(map.next_value()?).is_some() {
                    return Err(A::Error::duplicate_field("version"));
                }
            } else {
                let read = map.next_value()?;
                tensor::insert(&mut tensors, name, read)?;
            }
        }
        let version = version.ok_or_else(|| A::Error::missing_field("version"))?;
        Ok(Model { version, tensors: tensors.into_iter().collect() })
    }
}
