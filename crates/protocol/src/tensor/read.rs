//! Reading tensors from JSON, with limits.

use std::{collections::BTreeMap, fmt};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{NAME_LEN_MAX, RANK_MAX, TENSORS_MAX, Tensor, Tensors};

impl<'de> Deserialize<'de> for Tensor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut values = vec![];
        let shape = Level { values: &mut values, depth: 0 }.deserialize(deserializer)?;
        Ok(Self { shape, values })
    }
}

impl<'de> Deserialize<'de> for Tensors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Named)
    }
}

/// Adds one named tensor, refusing doubles, long names and too many.
pub(crate) fn insert<E: Error>(
    tensors: &mut BTreeMap<String, Tensor>,
    name: String,
    tensor: Tensor,
) -> Result<(), E> {
    if name.is_empty() || name.len() > NAME_LEN_MAX {
        return Err(E::custom(format!("a tensor's name has 1 to {NAME_LEN_MAX} bytes")));
    }
    if tensors.len() == TENSORS_MAX {
        return Err(E::custom(format!("more than {TENSORS_MAX} tensors")));
    }
    match tensors.insert(name.clone(), tensor) {
        Some(_) => Err(E::custom(format!("tensor {name:?} stands twice"))),
        None => Ok(()),
    }
}

struct Named;

impl<'de> Visitor<'de> for Named {
    type Value = Tensors;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tensors, A::Error> {
        let mut tensors = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let tensor = map.next_value()?;
            insert(&mut tensors, name, tensor)?;
        }
        Ok(Tensors(tensors))
    }
}

/// One level of nesting: appends its numbers to `values` and returns its shape.
struct Level<'a> {
    values: &'a mut Vec<f64>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = Vec<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<usize>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = Vec<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a nested array of numbers")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Vec<usize>, E> {
        self.values.push(value);
        Ok(vec![])
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Vec<usize>, E> {
        self.visit_f64(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Vec<usize>, E> {
        self.visit_f64(value as f64)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<usize>, A::Error> {
        let depth = self.depth + 1;
        if depth > RANK_MAX {
            return Err(A::Error::custom(format!("arrays nested deeper than {RANK_MAX}")));
        }
        let mut len = 0;
        let mut inner: Option<Vec<usize>> = None;
        while let Some(shape) = seq.next_element_seed(Level { values: self.values, depth })? {
            match &inner {
                Some(first) if *first != shape => {
                    return Err(A::Error::custom(format!(
                        "ragged array: an element of shape {shape:?} beside one of {first:?}"
                    )));
                }
                Some(_) => {}
                None => inner = Some(shape),
            }
            len += 1;
        }
        let mut shape = vec![len];
        shape.extend(inner.unwrap_or_default());
        Ok(shape)
    }
}
