//! The model that a round starts from, as JSON or as a safetensors file.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Map, Value};

use crate::{
    Error, Tensor,
    data::unreadable,
    safetensors::{self, Width},
};

/// Tensors by name, and the form in which an update to them is written.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseModel {
    tensors: BTreeMap<String, Tensor>,
    widths: Option<BTreeMap<String, Width>>,
}

impl BaseModel {
    /// A model of tensors that have no types.
    pub const fn of(tensors: BTreeMap<String, Tensor>) -> Self {
        Self { tensors, widths: None }
    }

    /// Reads the model in a file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&fs::read(path).map_err(|source| unreadable(path, source))?)
    }

    /// Reads a model of either form. In JSON the tensors stand at the top level, beside `version`
    /// and whatever is no tensor.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if safetensors::is_file(bytes) {
            let (mut tensors, mut widths) = (BTreeMap::new(), BTreeMap::new());
            for (name, (tensor, width)) in safetensors::read(bytes)? {
                widths.insert(name.clone(), width);
                tensors.insert(name, tensor);
            }
            return Ok(Self { tensors, widths: Some(widths) });
        }
        let fields: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| Error::BaseModel { why: error.to_string() })?;
        let fields = fields.iter().filter(|(name, _)| *name != "version");
        let tensors =
            fields.filter_map(|(name, value)| Some((name.clone(), Tensor::from_json(value)?)));
        Ok(Self { tensors: tensors.collect(), widths: None })
    }

    pub const fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// The tensor of this name; an error says which there are.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, Error> {
        self.tensors
            .get(name)
            .ok_or_else(|| Error::NoTensor { name: name.to_owned(), found: self.described() })
    }

    /// The type of each tensor; none where the model is JSON, whose numbers have no type.
    pub const fn widths(&self) -> Option<&BTreeMap<String, Width>> {
        self.widths.as_ref()
    }

    /// The tensors in words, the first few of them.
    pub fn described(&self) -> String {
        if self.tensors.is_empty() {
            return "no tensors".to_owned();
        }
        let shown = self.tensors.iter().take(8);
        let mut shown: Vec<String> =
            shown.map(|(name, tensor)| format!("{name} {:?}", tensor.shape)).collect();
        if self.tensors.len() > shown.len() {
            shown.push(format!("and {} more", self.tensors.len() - shown.len()));
        }
        shown.join(", ")
    }
}
