//! Writing a tensor as nested JSON arrays.

use serde::{
    Serialize, Serializer,
    ser::{Error, SerializeSeq},
};

use super::Tensor;

impl Serialize for Tensor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Part { shape: &self.shape, values: &self.values }.serialize(serializer)
    }
}

struct Part<'a> {
    shape: &'a [usize],
    values: &'a [f64],
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some((len, inner)) = self.shape.split_first() else {
            let value = self.values[0];
            if !value.is_finite() {
                return Err(S::Error::custom("JSON has no word for a number that is not finite"));
            }
            return serializer.serialize_f64(value);
        };
        let stride: usize = inner.iter().product();
        let mut seq = serializer.serialize_seq(Some(*len))?;
        for index in 0..*len {
            let values = &self.values[index * stride..(index + 1) * stride];
            seq.serialize_element(&Part { shape: inner, values })?;
        }
        seq.end()
    }
}
