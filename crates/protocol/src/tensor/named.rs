//! Tensors by name: the numbers of a model, or of an update to it.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _};

use bytes::Bytes;
use serde::{Serialize, Serializer};

use super::{DType, Schema, ShapeError, Slot, Tensor, number, scale};
use crate::Digest;

/// Tensors by name. Cloning shares their bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensors(BTreeMap<String, Tensor>);

impl Tensors {
    pub(super) const fn of(tensors: BTreeMap<String, Tensor>) -> Self {
        Self(tensors)
    }

    /// Names, types and shapes.
    pub fn schema(&self) -> Schema {
        self.0.iter().map(|(name, tensor)| (name.clone(), tensor.slot().clone())).collect()
    }

    /// The name of the first tensor that holds a number which is not finite.
    pub fn not_finite(&self) -> Option<&str> {
        let finite = |name: &str, tensor: &Tensor| match self.scale_of(name, tensor) {
            Some(scale) => scale::all_finite(scale),
            None => number::all_finite(tensor.dtype(), tensor.data()),
        };
        self.iter().find(|(name, tensor)| !finite(name, tensor)).map(|(name, _)| name)
    }

    /// What is wrong with the scales of tensors of `I8`, in words.
    pub fn scale_error(&self) -> Option<String> {
        let quantised = self.iter().filter(|(_, tensor)| tensor.dtype() == DType::I8);
        quantised.filter_map(|(name, tensor)| self.wrong_scale(name, tensor)).next()
    }

    fn wrong_scale(&self, name: &str, tensor: &Tensor) -> Option<String> {
        let scale_name = format!("{name}{}", scale::SUFFIX);
        let Some(scale) = self.0.get(&scale_name) else {
            return Some(format!("tensor {name:?} is of I8 and has no scale {scale_name:?}"));
        };
        if scale.dtype() == DType::F32 && scale::fits(scale.shape(), tensor.shape()) {
            return None;
        }
        let (dtype, shape) = (scale.dtype(), scale.shape());
        Some(format!(
            "the scale {scale_name:?} is {dtype} of shape {shape:?}; it takes F32, one number or \
             one for each step of the first dimension of {:?}",
            tensor.shape()
        ))
    }

    fn scale_of(&self, name: &str, tensor: &Tensor) -> Option<&Tensor> {
        if tensor.dtype() != DType::I8 {
            return None;
        }
        let scale = self.0.get(&format!("{name}{}", scale::SUFFIX))?;
        scale::fits(scale.shape(), tensor.shape()).then_some(scale)
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// Tensors in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Length of the canonical bytes.
    pub fn byte_len(&self) -> usize {
        self.0.values().map(|tensor| tensor.data().len()).sum()
    }

    /// The canonical bytes: the data of all tensors in the order of their names.
    pub fn canonical(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.byte_len());
        self.0.values().for_each(|tensor| bytes.extend_from_slice(tensor.data()));
        bytes.into()
    }

    /// The inverse of [`Tensors::canonical`]; copies nothing.
    pub fn from_canonical(schema: &Schema, bytes: &Bytes) -> Result<Self, ShapeError> {
        if schema.byte_len() != bytes.len() {
            return Err(ShapeError::of_schema(schema, bytes.len()));
        }
        let mut at = 0;
        let tensors = schema.iter().map(|(name, slot)| {
            let from = at;
            at += slot.byte_len();
            Ok((name.to_owned(), Tensor::typed(slot.clone(), bytes.slice(from..at))?))
        });
        tensors.collect()
    }

    /// The digest of names, types, shapes and canonical bytes.
    pub fn digest(&self) -> Digest {
        let (mut digest, mut text) = (Digest::builder(), String::new());
        for (name, it) in self.iter() {
            text.clear();
            // Writing into a text cannot fail.
            let _ = write!(text, "{name:?} {} {:?}", it.dtype(), it.shape());
            digest.push_part(text.as_bytes());
            digest.push_part(it.data());
        }
        digest.finish()
    }

    /// All parameters one after the other, tensors in the order of their names: exact, and those of
    /// `I8` times their scales, which are left out.
    pub fn flatten(&self) -> Vec<f64> {
        let mut values = vec![];
        for (name, tensor) in self.parts() {
            match self.scale_of(name, tensor) {
                Some(scale) => {
                    values.extend(scale::multiply(tensor, scale).into_iter().map(f64::from))
                }
                None => number::widen(tensor.dtype(), tensor.data(), &mut values),
            }
        }
        values
    }

    /// The inverse of [`Tensors::flatten`]: each number is rounded once to its tensor's type; what
    /// is too large for it becomes an infinity (see [`Tensors::not_finite`]).
    pub fn unflatten(schema: &Schema, values: &[f64]) -> Result<Self, ShapeError> {
        if schema.parameters() != values.len() {
            let found = values.len();
            return Err(ShapeError { shape: vec![schema.parameters()], found });
        }
        let mut rest = values;
        let mut tensors = BTreeMap::new();
        for (name, slot) in schema.parts() {
            let (own, after) = rest.split_at(slot.count());
            rest = after;
            let Some((scale_name, scale_slot)) = schema.scale_of(name) else {
                tensors.insert(name.to_owned(), Tensor::rounded(slot.clone(), own)?);
                continue;
            };
            let (wholes, scales) = scale::divide(own, &scale_slot.shape);
            tensors.insert(name.to_owned(), Tensor::rounded(slot.clone(), &wholes)?);
            tensors.insert(scale_name, Tensor::rounded(scale_slot.clone(), &scales)?);
        }
        Ok(Self(tensors))
    }

    /// The same numbers in the types of `base`, rounded once; or what is different apart from
    /// types, in words.
    pub fn cast_to(&self, base: &Schema) -> Result<Self, String> {
        let slots = self.iter().map(|(name, tensor)| (name, tensor.slot()));
        if slots.eq(base.iter()) {
            return Ok(self.clone());
        }
        match base.difference_untyped(&self.dequantised().schema()) {
            Some(difference) => Err(difference),
            None => Self::unflatten(base, &self.flatten()).map_err(|why| why.to_string()),
        }
    }

    /// The same numbers without scales: what was `I8` is `F32`.
    pub fn dequantised(&self) -> Cow<'_, Self> {
        if !self.0.values().any(|tensor| tensor.dtype() == DType::I8) {
            return Cow::Borrowed(self);
        }
        let plain = self.parts().map(|(name, tensor)| match self.scale_of(name, tensor) {
            None => (name.to_owned(), tensor.clone()),
            Some(scale) => {
                let values = scale::multiply(tensor, scale);
                let data = values.into_iter().flat_map(f32::to_le_bytes).collect();
                let slot = Slot { dtype: DType::F32, shape: tensor.shape().to_vec() };
                let tensor = Tensor::typed(slot, data).expect("as many numbers as before");
                (name.to_owned(), tensor)
            }
        });
        Cow::Owned(plain.collect())
    }

    /// Tensors that hold parameters: all but the scales.
    fn parts(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let is_scale = |name: &str| {
            let of = name.strip_suffix(scale::SUFFIX).and_then(|of| self.0.get(of));
            of.is_some_and(|of| of.dtype() == DType::I8)
        };
        self.iter().filter(move |(name, _)| !is_scale(name))
    }
}

impl FromIterator<(String, Tensor)> for Tensors {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

/// As JSON, numbers stand without types and scales.
impl Serialize for Tensors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let plain = self.dequantised();
        serializer.collect_map(plain.iter())
    }
}
