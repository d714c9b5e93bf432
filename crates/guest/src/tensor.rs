//! Tensors as the models of the platform write them: a number, or nested arrays of numbers.

use serde::{
    Serialize, Serializer,
    ser::{Error, SerializeSeq},
};
use serde_json::Value;

/// A dense tensor, row by row; a scalar has an empty shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Tensor {
    /// Reads a number or a rectangular nest of arrays of numbers; `None` for anything else.
    pub fn from_json(value: &Value) -> Option<Self> {
        let mut shape = vec![];
        let mut level = value;
        while let Value::Array(items) = level {
            shape.push(items.len());
            match items.first() {
                Some(first) => level = first,
                None => break,
            }
        }
        let mut values = vec![];
        collect(value, &shape, &mut values)?;
        Some(Self { shape, values })
    }
}

fn collect(value: &Value, shape: &[usize], values: &mut Vec<f64>) -> Option<()> {
    match (value, shape.split_first()) {
        (Value::Number(number), None) => {
            values.push(number.as_f64()?);
            Some(())
        }
        (Value::Array(items), Some((len, inner))) if items.len() == *len => {
            items.iter().try_for_each(|item| collect(item, inner, values))
        }
        _ => None,
    }
}

impl Serialize for Tensor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        View { shape: &self.shape, values: &self.values }.serialize(serializer)
    }
}

struct View<'a> {
    shape: &'a [usize],
    values: &'a [f64],
}

impl Serialize for View<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some((len, inner)) = self.shape.split_first() else {
            let value = self.values.first().ok_or_else(|| S::Error::custom("a scalar is empty"))?;
            return serializer.serialize_f64(*value);
        };
        let mut items = serializer.serialize_seq(Some(*len))?;
        let stride: usize = inner.iter().product();
        for index in 0..*len {
            let values = &self.values[index * stride..(index + 1) * stride];
            items.serialize_element(&View { shape: inner, values })?;
        }
        items.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nests_are_read_and_written_alike() {
        for text in
            ["0.5", "[1.0,-2.0]", "[[1.0,2.0,3.0],[4.0,5.0,6.0]]", "[[[1.0]],[[2.0]]]", "[]"]
        {
            let value: Value = serde_json::from_str(text).unwrap();
            let tensor = Tensor::from_json(&value).unwrap();
            assert_eq!(serde_json::to_string(&tensor).unwrap(), text);
        }
    }

    #[test]
    fn ragged_nests_and_other_values_are_refused() {
        for value in [
            json!([[1], [1, 2]]),
            json!([1, [2]]),
            json!([[1], 2]),
            json!(["1"]),
            json!({}),
            json!(null),
        ] {
            assert_eq!(Tensor::from_json(&value), None, "{value}");
        }
    }
}
