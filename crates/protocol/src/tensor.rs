//! Named tensors as JSON has them: numbers, or nested arrays of numbers.
//!
//! Read straight into flat vectors, with limits, so that a hostile payload costs no more memory
//! than an honest one of its size. Numbers survive the round trip to the last bit.

mod read;
mod write;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use read::insert;

/// Deepest nesting of arrays.
pub const RANK_MAX: usize = 16;
/// Most tensors in one model.
pub const TENSORS_MAX: usize = 4096;
/// Longest name, in bytes.
pub const NAME_LEN_MAX: usize = 256;

/// One tensor: row-major values and their shape; a scalar has an empty shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    values: Vec<f64>,
}

/// Tensors by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Tensors(BTreeMap<String, Tensor>);

/// Names and shapes, without the numbers: what an update must share with its base model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema(BTreeMap<String, Vec<usize>>);

/// Values that do not fill a shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} values do not fill the shape {shape:?}")]
pub struct ShapeError {
    shape: Vec<usize>,
    found: usize,
}

impl Tensor {
    /// A tensor of `shape` from row-major `values`.
    pub fn new(shape: Vec<usize>, values: Vec<f64>) -> Result<Self, ShapeError> {
        let expected = shape.iter().try_fold(1_usize, |n, dim| n.checked_mul(*dim));
        if expected != Some(values.len()) || shape.len() > RANK_MAX {
            return Err(ShapeError { shape, found: values.len() });
        }
        Ok(Self { shape, values })
    }

    /// A single number.
    pub fn scalar(value: f64) -> Self {
        Self { shape: vec![], values: vec![value] }
    }

    /// Extent of each dimension, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values, row-major.
    pub fn values(&self) -> &[f64] {
        &self.values
    }
}

impl Tensors {
    /// Names and shapes.
    pub fn schema(&self) -> Schema {
        Schema(self.0.iter().map(|(name, t)| (name.clone(), t.shape.clone())).collect())
    }

    /// The name of the first tensor that holds a number which is not finite.
    pub fn not_finite(&self) -> Option<&str> {
        self.0
            .iter()
            .find(|(_, tensor)| !tensor.values.iter().all(|value| value.is_finite()))
            .map(|(name, _)| name.as_str())
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

    /// All values one after the other, tensors in the order of their names.
    pub fn flatten(&self) -> Vec<f64> {
        self.0.values().flat_map(|tensor| tensor.values.iter().copied()).collect()
    }

    /// The inverse of [`Tensors::flatten`].
    pub fn unflatten(schema: &Schema, values: &[f64]) -> Result<Self, ShapeError> {
        let error = || ShapeError { shape: vec![schema.parameters()], found: values.len() };
        if schema.parameters() != values.len() {
            return Err(error());
        }
        let mut rest = values;
        let mut tensors = BTreeMap::new();
        for (name, shape) in &schema.0 {
            let (own, after) = rest.split_at(shape.iter().product());
            tensors.insert(name.clone(), Tensor::new(shape.clone(), own.to_vec())?);
            rest = after;
        }
        Ok(Self(tensors))
    }
}

impl FromIterator<(String, Tensor)> for Tensors {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl Schema {
    /// How many numbers a model of this schema has.
    pub fn parameters(&self) -> usize {
        self.0.values().map(|shape| shape.iter().product::<usize>()).sum()
    }

    /// What is different in `found`, in words; `None` if nothing is.
    pub fn difference(&self, found: &Self) -> Option<String> {
        for (name, shape) in &self.0 {
            match found.0.get(name) {
                None => return Some(format!("tensor {name:?} is missing")),
                Some(other) if other != shape => {
                    return Some(format!("tensor {name:?} has shape {other:?}, not {shape:?}"));
                }
                Some(_) => {}
            }
        }
        let extra = found.0.keys().find(|name| !self.0.contains_key(*name))?;
        Some(format!("tensor {extra:?} is not in the base model"))
    }
}
