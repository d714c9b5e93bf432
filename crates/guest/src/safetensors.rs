//! Tensors as a safetensors file: a header in JSON, then the numbers, little-endian.
//!
//! The base model comes from the proplet, which got it from the model server: this reader only has
//! to notice what it cannot train. Numbers are trained as `f64` and rounded once to their type.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{Error, Tensor};

const PREFIX_LEN: usize = 8;
const METADATA: &str = "__metadata__";

/// The types of numbers that are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    F64,
    F32,
}

/// Tensors and the type of each.
pub(crate) type Typed = BTreeMap<String, (Tensor, Width)>;

impl Width {
    const ALL: [Self; 2] = [Self::F64, Self::F32];

    const fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
        }
    }

    fn read(self, data: &[u8]) -> Vec<f64> {
        match self {
            Self::F64 => data.as_chunks().0.iter().map(|it| f64::from_le_bytes(*it)).collect(),
            Self::F32 => {
                data.as_chunks().0.iter().map(|it| f64::from(f32::from_le_bytes(*it))).collect()
            }
        }
    }

    fn write(self, values: &[f64], out: &mut Vec<u8>) {
        match self {
            Self::F64 => values.iter().for_each(|it| out.extend_from_slice(&it.to_le_bytes())),
            Self::F32 => {
                values.iter().for_each(|it| out.extend_from_slice(&(*it as f32).to_le_bytes()));
            }
        }
    }

    /// A number of this type that is near this one.
    pub(crate) fn round(self, value: f64) -> f64 {
        match self {
            Self::F64 => value,
            Self::F32 => f64::from(value as f32),
        }
    }

    /// Whether a number stays one in this type.
    pub(crate) const fn holds(self, value: f64) -> bool {
        match self {
            Self::F64 => value.is_finite(),
            Self::F32 => (value as f32).is_finite(),
        }
    }
}

/// Whether these bytes are a file rather than a text: its upper length bytes are zero.
pub(crate) fn is_file(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(&[0; 4])
}

/// The tensors of a file.
pub(crate) fn read(file: &[u8]) -> Result<Typed, Error> {
    let bad = |why: String| Error::BaseModel { why };
    let (prefix, rest) = file
        .split_first_chunk::<PREFIX_LEN>()
        .ok_or_else(|| bad(format!("{} bytes are no safetensors file", file.len())))?;
    let len = usize::try_from(u64::from_le_bytes(*prefix)).ok();
    let (header, data) = len
        .and_then(|len| rest.split_at_checked(len))
        .ok_or_else(|| bad("its header does not end".to_owned()))?;
    let entries: BTreeMap<String, Value> =
        serde_json::from_slice(header).map_err(|why| bad(format!("header: {why}")))?;
    let entries = entries.into_iter().filter(|(name, _)| name != METADATA);
    let tensors = entries.map(|(name, info)| {
        let read = tensor(info, data).map_err(|why| bad(format!("tensor {name:?}: {why}")))?;
        Ok((name, read))
    });
    tensors.collect()
}

fn tensor(info: Value, data: &[u8]) -> Result<(Tensor, Width), String> {
    let dtype = info["dtype"].as_str().ok_or("its dtype is no text")?;
    let shape = numbers(&info["shape"]).ok_or("its shape is no list of whole numbers")?;
    let offsets = numbers(&info["data_offsets"]).unwrap_or_default();
    let [begin, end] = offsets[..] else {
        return Err("its data_offsets are no two whole numbers".to_owned());
    };
    let width = Width::ALL.into_iter().find(|width| width.name() == dtype);
    let width = width.ok_or_else(|| format!("this client trains F64 and F32, not {dtype}"))?;
    let data = data.get(begin..end).ok_or_else(|| format!("no bytes {begin} to {end}"))?;
    let values = width.read(data);
    let count = shape.iter().try_fold(1_usize, |count, extent| count.checked_mul(*extent));
    if count != Some(values.len()) {
        return Err(format!("{} numbers do not fill {shape:?}", values.len()));
    }
    Ok((Tensor { shape, values }, width))
}

fn numbers(value: &Value) -> Option<Vec<usize>> {
    let number = |it: &Value| usize::try_from(it.as_u64()?).ok();
    value.as_array()?.iter().map(number).collect()
}

/// A file of these tensors and strings, tensors in the order of their names.
pub(crate) fn write(tensors: &Typed, metadata: &BTreeMap<&str, String>) -> Result<Vec<u8>, Error> {
    let encode = |source| Error::Encode { source };
    let (mut header, mut data) = (BTreeMap::new(), vec![]);
    let strings = serde_json::to_value(metadata).map_err(encode)?;
    header.insert(METADATA, strings);
    for (name, (tensor, width)) in tensors {
        let begin = data.len();
        width.write(&tensor.values, &mut data);
        let (dtype, shape) = (width.name(), &tensor.shape);
        let info = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name, info);
    }
    let mut text = serde_json::to_vec(&header).map_err(encode)?;
    text.resize(text.len().next_multiple_of(PREFIX_LEN), b' ');
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.append(&mut text);
    file.append(&mut data);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed() -> Typed {
        let tensor = |shape, values| Tensor { shape, values };
        [
            ("b".to_owned(), (tensor(vec![], vec![0.1]), Width::F64)),
            ("w".to_owned(), (tensor(vec![2, 1], vec![0.5, f64::from(0.1_f32)]), Width::F32)),
        ]
        .into()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let file = write(&typed(), &[("num_samples", "3".to_owned())].into()).unwrap();
        assert!(is_file(&file) && !is_file(br#"{"w":[1],"version":0}"#));
        assert_eq!(read(&file).unwrap(), typed());
    }

    #[test]
    fn a_file_that_was_cut_or_changed_is_refused_or_read_and_never_a_panic() {
        let file = write(&typed(), &BTreeMap::new()).unwrap();
        for len in 0..file.len() {
            assert!(read(&file[..len]).is_err(), "{len}");
        }
        for at in 0..file.len() {
            for byte in [0, b'9', b'"', 0xff] {
                let mut changed = file.clone();
                changed[at] = byte;
                let _ = read(&changed);
            }
        }
    }

    #[test]
    fn a_type_that_is_not_trained_is_named() {
        let mut file = write(&typed(), &BTreeMap::new()).unwrap();
        let at = file.windows(3).position(|it| it == b"F32").unwrap();
        file[at..at + 3].copy_from_slice(b"F16");
        let said = read(&file).unwrap_err().to_string();
        assert!(said.contains("\"w\"") && said.contains("not F16"), "{said}");
    }
}
