//! Reading tensors from JSON, with limits.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{DType, NAME_LEN_MAX, RANK_MAX, Slot, TENSORS_MAX, Tensor, Tensors, safetensors};

impl<'de> Deserialize<'de> for Tensor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut data = vec![];
        let shape = Level { data: &mut data, depth: 0 }.deserialize(deserializer)?;
        // JSON has one kind of number.
        Ok(Self { slot: Slot { dtype: DType::F64, shape }, data: data.into() })
    }
}

impl<'de> Deserialize<'de> for Tensors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Named)
    }
}

/// Adds one named tensor, refusing doubles, long names and too many.
pub(crate) fn insert<T, E: Error>(
    tensors: &mut BTreeMap<String, T>,
    name: String,
    tensor: T,
) -> Result<(), E> {
    if name.is_empty() || name.len() > NAME_LEN_MAX {
        return Err(E::custom(format!("a tensor's name has 1 to {NAME_LEN_MAX} bytes")));
    }
    if name == safetensors::METADATA {
        return Err(E::custom(format!("no tensor can be called {name:?}")));
    }
    if tensors.len() == TENSORS_MAX {
        return Err(E::custom(format!("more than {TENSORS_MAX} tensors")));
    }
    match tensors.entry(name) {
        Entry::Occupied(twice) => Err(E::custom(format!("tensor {:?} stands twice", twice.key()))),
        Entry::Vacant(place) => {
            place.insert(tensor);
            Ok(())
        }
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
        Ok(Tensors::of(tensors))
    }
}

/// One level of nesting: appends its numbers to `data` and returns its shape.
struct Level<'a> {
    data: &'a mut Vec<u8>,
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
        self.data.extend_from_slice(&value.to_le_bytes());
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
        while let Some(shape) = seq.next_element_seed(Level { data: self.data, depth })? {
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
