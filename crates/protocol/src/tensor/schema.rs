//! Names, types and shapes, without the numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DType, scale};

/// Type and shape of one tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "SlotText")]
pub struct Slot {
    pub dtype: DType,
    /// Extent of each dimension, outermost first.
    pub shape: Vec<usize>,
}

/// What an update must share with its base model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema(BTreeMap<String, Slot>);

/// Where nothing is said of a type, the numbers are those of JSON.
#[derive(Deserialize)]
#[serde(untagged)]
enum SlotText {
    Typed { dtype: DType, shape: Vec<usize> },
    Shape(Vec<usize>),
}

impl From<SlotText> for Slot {
    fn from(text: SlotText) -> Self {
        match text {
            SlotText::Typed { dtype, shape } => Self { dtype, shape },
            SlotText::Shape(shape) => Self { dtype: DType::F64, shape },
        }
    }
}

impl Slot {
    /// How many numbers there are.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of all numbers.
    pub fn byte_len(&self) -> usize {
        self.count() * self.dtype.size()
    }

    /// Bytes of all numbers, unless they are more than can be counted, also by one who leaves
    /// empty dimensions out.
    pub(super) fn checked_byte_len(&self) -> Option<usize> {
        let mut extents = self.shape.iter().map(|extent| (*extent).max(1));
        extents.try_fold(self.dtype.size(), usize::checked_mul)?;
        Some(self.byte_len())
    }
}

impl Schema {
    /// How many parameters a model of this schema has; scales are none.
    pub fn parameters(&self) -> usize {
        self.parts().map(|(_, slot)| slot.count()).sum()
    }

    /// Length of the canonical bytes: the data of all tensors in the order of their names.
    pub fn byte_len(&self) -> usize {
        self.0.values().map(Slot::byte_len).sum()
    }

    /// The one type of all tensors, if they have but one.
    pub fn dtype(&self) -> Option<DType> {
        let mut types = self.0.values().map(|slot| slot.dtype);
        let first = types.next()?;
        types.all(|dtype| dtype == first).then_some(first)
    }

    /// Tensors in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Slot)> {
        self.0.iter().map(|(name, slot)| (name.as_str(), slot))
    }

    /// Type and shape of the tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&Slot> {
        self.0.get(name)
    }

    /// Tensors that hold parameters: all but the scales.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&str, &Slot)> {
        self.iter().filter(|(name, _)| !self.is_scale(name))
    }

    /// The scale of the tensor called `name`, if that is of `I8` and has one.
    pub(super) fn scale_of(&self, name: &str) -> Option<(String, &Slot)> {
        self.0.get(name).filter(|slot| slot.dtype == DType::I8)?;
        let name = format!("{name}{}", scale::SUFFIX);
        self.0.get(&name).map(|slot| (name, slot))
    }

    pub(super) fn is_scale(&self, name: &str) -> bool {
        let of = name.strip_suffix(scale::SUFFIX).and_then(|of| self.0.get(of));
        of.is_some_and(|of| of.dtype == DType::I8)
    }

    /// What is different in `found`, in words; `None` if nothing is.
    pub fn difference(&self, found: &Self) -> Option<String> {
        let other = |name: &str, own: &Slot, found: &Slot| {
            if own.dtype != found.dtype {
                return Some(format!("tensor {name:?} is of {}, not {}", found.dtype, own.dtype));
            }
            reshaped(name, own, found)
        };
        differs(self.iter(), found, other)
    }

    /// What is different in `found` when types do not matter and scales are left out.
    pub(super) fn difference_untyped(&self, found: &Self) -> Option<String> {
        differs(self.parts(), found, reshaped)
    }
}

fn differs<'a>(
    own: impl Iterator<Item = (&'a str, &'a Slot)>,
    found: &Schema,
    other: impl Fn(&str, &Slot, &Slot) -> Option<String>,
) -> Option<String> {
    let mut seen = 0;
    let mut names = vec![];
    for (name, slot) in own {
        match found.0.get(name) {
            None => return Some(format!("tensor {name:?} is missing")),
            Some(found) => {
                if let Some(difference) = other(name, slot, found) {
                    return Some(difference);
                }
            }
        }
        seen += 1;
        names.push(name);
    }
    if seen == found.0.len() {
        return None;
    }
    let extra = found.0.keys().find(|name| names.binary_search(&name.as_str()).is_err())?;
    Some(format!("tensor {extra:?} is not in the base model"))
}

fn reshaped(name: &str, own: &Slot, found: &Slot) -> Option<String> {
    let (own, found) = (&own.shape, &found.shape);
    (own != found).then(|| format!("tensor {name:?} has shape {found:?}, not {own:?}"))
}

impl FromIterator<(String, Slot)> for Schema {
    fn from_iter<I: IntoIterator<Item = (String, Slot)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}
