//! Writing a tensor as nested JSON arrays: each number as the shortest text that reads back as the
//! same.

use serde::{
    Serialize, Serializer,
    ser::{Error, SerializeSeq},
};

use super::{DType, Tensor};

impl Serialize for Tensor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.dtype() {
            DType::F64 => {
                Part { shape: self.shape(), values: &self.to_f64()[..] }.serialize(serializer)
            }
            // The shorter types are exact as `f32`.
            DType::F32 | DType::F16 | DType::BF16 | DType::I8 => {
                Part { shape: self.shape(), values: &self.to_f32()[..] }.serialize(serializer)
            }
        }
    }
}

struct Part<'a, T> {
    shape: &'a [usize],
    values: &'a [T],
}

impl<T: Copy + Into<f64> + Serialize> Serialize for Part<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some((len, inner)) = self.shape.split_first() else {
            let value = self.values[0];
            if !value.into().is_finite() {
                return Err(S::Error::custom("JSON has no word for a number that is not finite"));
            }
            return value.serialize(serializer);
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
