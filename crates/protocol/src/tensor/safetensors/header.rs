//! The header of a safetensors file, which is all that has to be read to know what is in it.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
    ser::SerializeMap,
};

use super::{HEADER_LEN_MAX, METADATA, Metadata, PREFIX_LEN, SafetensorsError};
use crate::{
    envelope::brief,
    tensor::{DType, RANK_MAX, Schema, Slot, insert},
};

/// Strings, and where each tensor lies in the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub metadata: Metadata,
    pub spans: BTreeMap<String, Span>,
    /// Length of the header's text.
    text_len: usize,
}

/// Type, shape and place of one tensor, in bytes from the beginning of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub slot: Slot,
    pub begin: usize,
    pub end: usize,
}

impl Header {
    /// Reads the header of a file of `file_len` bytes that begins with `start`, which has to reach
    /// to the header's end. Holds that every byte of the data belongs to exactly one tensor.
    pub fn read(start: &[u8], file_len: u64) -> Result<Self, SafetensorsError> {
        let (text, text_len) = HeaderText::read(start)?;
        let spans = text.tensors.into_iter().map(|(name, info)| {
            let span = span(&name, info)?;
            Ok((name, span))
        });
        let spans: BTreeMap<String, Span> = spans.collect::<Result<_, _>>()?;
        let end = chain(&spans)?;
        let header = Self { metadata: text.metadata.unwrap_or_default(), spans, text_len };
        let found = file_len.saturating_sub(header.data_start() as u64);
        if end != found {
            return Err(SafetensorsError::DataLen { expected: end, found });
        }
        Ok(header)
    }

    /// The strings of a file that begins with `start`, whatever is wrong with its tensors.
    pub fn metadata_of(start: &[u8]) -> Option<Metadata> {
        let (text, _) = HeaderText::read(start).ok()?;
        Some(text.metadata.unwrap_or_default())
    }

    /// The header for tensors of this schema in the order of their names.
    pub fn of(schema: &Schema, metadata: Metadata) -> Self {
        let mut end = 0;
        let spans = schema.iter().map(|(name, slot)| {
            let begin = end;
            end += slot.byte_len();
            (name.to_owned(), Span { slot: slot.clone(), begin, end })
        });
        let spans = spans.collect();
        Self { metadata, spans, text_len: 0 }
    }

    /// Names, types and shapes.
    pub fn schema(&self) -> Schema {
        self.spans.iter().map(|(name, span)| (name.clone(), span.slot.clone())).collect()
    }

    /// Where the data begin in the file that was read.
    pub const fn data_start(&self) -> usize {
        PREFIX_LEN + self.text_len
    }

    /// What stands before the data: its length is a multiple of 8, so that they stay aligned.
    pub fn write(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).expect("strings and numbers serialize");
        text.resize(text.len().next_multiple_of(PREFIX_LEN), b' ');
        let mut out = (text.len() as u64).to_le_bytes().to_vec();
        out.append(&mut text);
        out
    }
}

/// Holds that the spans follow one another without a gap; gives the end of the last.
fn chain(spans: &BTreeMap<String, Span>) -> Result<u64, SafetensorsError> {
    let mut order: Vec<(&String, &Span)> = spans.iter().collect();
    order.sort_by_key(|(_, span)| (span.begin, span.end));
    let mut expected = 0;
    for (name, span) in order {
        if span.begin != expected {
            let (begin, expected) = (span.begin as u64, expected as u64);
            return Err(SafetensorsError::Place { name: name.clone(), begin, expected });
        }
        expected = span.end;
    }
    Ok(expected as u64)
}

fn span(name: &str, info: Info) -> Result<Span, SafetensorsError> {
    let Info { dtype, shape: Shape(shape), data_offsets: (begin, end) } = info;
    let Ok(dtype) = dtype.parse::<DType>() else {
        let dtype = dtype.chars().take(40).collect();
        return Err(SafetensorsError::Type { name: name.to_owned(), dtype });
    };
    let slot = Slot { dtype, shape };
    let len = slot.checked_byte_len();
    match (usize::try_from(begin), usize::try_from(end)) {
        (Ok(from), Ok(to)) if to.checked_sub(from).is_some_and(|found| Some(found) == len) => {
            Ok(Span { slot, begin: from, end: to })
        }
        (_, _) => {
            let (name, shape) = (name.to_owned(), slot.shape);
            Err(SafetensorsError::Size { name, dtype, shape, begin, end })
        }
    }
}

impl Serialize for Header {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.metadata.is_empty() {
            map.serialize_entry(METADATA, &self.metadata)?;
        }
        for (name, Span { slot, begin, end }) in &self.spans {
            let data_offsets = (*begin as u64, *end as u64);
            let info = InfoText { dtype: slot.dtype, shape: &slot.shape, data_offsets };
            map.serialize_entry(name, &info)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct InfoText<'a> {
    dtype: DType,
    shape: &'a [usize],
    data_offsets: (u64, u64),
}

struct HeaderText {
    metadata: Option<Metadata>,
    tensors: BTreeMap<String, Info>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// Extents of at most [`RANK_MAX`] dimensions.
struct Shape(Vec<usize>);

/// Strings under names that stand once each.
struct Strings(Metadata);

impl HeaderText {
    /// The header of a file that begins with `start`, and how long it is.
    fn read(start: &[u8]) -> Result<(Self, usize), SafetensorsError> {
        let short = SafetensorsError::Short { len: start.len() as u64 };
        let (prefix, rest) = start.split_first_chunk::<PREFIX_LEN>().ok_or(short)?;
        let header_len = u64::from_le_bytes(*prefix);
        let len = match usize::try_from(header_len) {
            Ok(len) if len <= HEADER_LEN_MAX => len,
            Ok(_) | Err(_) => return Err(SafetensorsError::HeaderTooLong { header_len }),
        };
        let cut = SafetensorsError::HeaderCut { header_len, len: start.len() as u64 };
        let text = rest.get(..len).ok_or(cut)?;
        match serde_json::from_slice(text) {
            Ok(header) => Ok((header, len)),
            Err(why) => Err(SafetensorsError::Header(brief(&why))),
        }
    }
}

impl<'de> Deserialize<'de> for HeaderText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = HeaderText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HeaderText, A::Error> {
        let mut header = HeaderText { metadata: None, tensors: BTreeMap::new() };
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                let Strings(metadata) = map.next_value()?;
                if header.metadata.replace(metadata).is_some() {
                    return Err(A::Error::duplicate_field(METADATA));
                }
            } else {
                let info = map.next_value()?;
                insert(&mut header.tensors, name, info)?;
            }
        }
        Ok(header)
    }
}

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Pairs).map(Self)
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Metadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
        let mut strings = Metadata::new();
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            if strings.contains_key(&name) {
                let name: String = name.chars().take(40).collect();
                return Err(A::Error::custom(format!("metadata {name:?} stand twice")));
            }
            strings.insert(name, value);
        }
        Ok(strings)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Extents).map(Self)
    }
}

struct Extents;

impl<'de> Visitor<'de> for Extents {
    type Value = Vec<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of extents")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<usize>, A::Error> {
        let mut shape = vec![];
        while let Some(extent) = seq.next_element::<usize>()? {
            if shape.len() == RANK_MAX {
                return Err(A::Error::custom(format!("more than {RANK_MAX} dimensions")));
            }
            shape.push(extent);
        }
        Ok(shape)
    }
}
