//! Which tensors stand in an encoded file, and how its forms are told apart.

use protocol::{
    DType, Schema, Slot,
    tensor::{
        NAME_LEN_MAX, TENSORS_MAX,
        safetensors::{HEADER_LEN_MAX, Header, Metadata},
    },
};

use crate::{DecodeError, Encoding, Precision, ReadAt, SchemaError, index, stage::int8};

/// The encoding's name in the metadata.
pub(crate) const ENCODING: &str = "encoding";

/// The tensor of the scales of all blocks of all tensors.
pub(crate) const SCALE: &str = ".scale";

/// Bytes before the header's text.
const PREFIX_LEN: u64 = 8;

/// How a payload is wrapped, as its first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    Json,
    Safetensors,
    /// To be unwrapped by [`crate::Inflate`].
    Zlib,
}

/// Tells the forms of a payload apart: JSON begins with `{`, maybe after white space; a safetensors
/// file with the length of its header, which is below 2^24, so that bytes 3 to 7 are zero; a zlib
/// stream with its method, and a check of the first two bytes.
pub fn wrapping(payload: &[u8]) -> Option<Wrapping> {
    if payload.trim_ascii_start().first() == Some(&b'{') && payload.get(3..8) != Some(&[0; 5]) {
        return Some(Wrapping::Json);
    }
    match payload {
        [_, _, _, 0, 0, 0, 0, 0, ..] => Some(Wrapping::Safetensors),
        [method, flags, ..] if is_zlib(*method, *flags) => Some(Wrapping::Zlib),
        _ => None,
    }
}

/// Whether these are the first bytes of a zlib stream (RFC 1950, section 2.2).
pub(crate) fn is_zlib(method: u8, flags: u8) -> bool {
    method & 0x0f == 8 && method >> 4 <= 7 && u16::from_be_bytes([method, flags]).is_multiple_of(31)
}

/// What is sent of a tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sent {
    All,
    Some { values: usize, index_len: usize },
}

/// What stands for one tensor.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) value: (String, Slot),
    pub(crate) index: Option<(String, Slot)>,
}

impl Parts {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(String, Slot)> {
        [Some(&self.value), self.index.as_ref()].into_iter().flatten()
    }

    /// How many scales belong to it.
    pub(crate) fn blocks(&self) -> usize {
        match self.value.1.dtype {
            DType::I8 => self.value.1.count().div_ceil(int8::BLOCK),
            DType::F64 | DType::F32 | DType::F16 | DType::BF16 => 0,
        }
    }
}

impl Encoding {
    /// Whether it serves models of this schema.
    pub fn check(&self, schema: &Schema) -> Result<(), SchemaError> {
        let mut found = usize::from(self.has_scales());
        for (of, slot) in schema.iter() {
            let of = of.to_owned();
            if self.has_scales() && of == SCALE {
                return Err(SchemaError::Name { name: of });
            }
            if slot.dtype == DType::I8 {
                return Err(SchemaError::Quantised { name: of });
            }
            for (name, _) in self.parts(&of, slot, self.most(slot)).iter() {
                if name.len() > NAME_LEN_MAX {
                    return Err(SchemaError::LongName { of, len: name.len() });
                }
                if *name != of && schema.get(name).is_some() {
                    return Err(SchemaError::Name { name: name.clone() });
                }
                found += 1;
            }
        }
        if found > TENSORS_MAX { Err(SchemaError::Tensors { found }) } else { Ok(()) }
    }

    /// The longest file, before compression, that an update to a model of this schema takes.
    pub fn file_bytes_max(&self, schema: &Schema) -> u64 {
        PREFIX_LEN + HEADER_LEN_MAX as u64 + self.data_bytes_max(schema)
    }

    /// The same without the header.
    pub(crate) fn data_bytes_max(&self, schema: &Schema) -> u64 {
        let data = schema.iter().map(|(name, slot)| {
            let parts = self.parts(name, slot, self.most(slot));
            let scales = parts.blocks() * DType::F32.size();
            parts.iter().map(|(_, slot)| slot.byte_len() as u64).sum::<u64>() + scales as u64
        });
        data.sum()
    }

    /// Whether there are blocks that have scales.
    pub(crate) fn has_scales(&self) -> bool {
        self.precision() == Precision::Int8
    }

    /// The most that is sent of a tensor.
    pub(crate) fn most(&self, slot: &Slot) -> Sent {
        self.topk().map_or(Sent::All, |fraction| Sent::Some {
            values: fraction.of(slot.count()),
            index_len: index::len_max(slot.count()),
        })
    }

    pub(crate) fn parts(&self, name: &str, slot: &Slot, sent: Sent) -> Parts {
        let dtype = self.value_dtype(slot.dtype);
        let (value_name, shape, index) = match sent {
            Sent::All => (name.to_owned(), slot.shape.clone(), None),
            Sent::Some { values, index_len } => {
                let index = Slot { dtype: DType::I8, shape: vec![index_len] };
                (format!("{name}.value"), vec![values], Some((format!("{name}.index"), index)))
            }
        };
        Parts { value: (value_name, Slot { dtype, shape }), index }
    }

    /// The type in which the values of a tensor of `dtype` travel.
    fn value_dtype(&self, dtype: DType) -> DType {
        match self.precision().dtype() {
            Some(short) => short,
            None if self.topk().is_some() && dtype == DType::F64 => DType::F32,
            None => dtype,
        }
    }
}

/// The header of a file of these parts: the scales, then all values, then all indexes. So numbers
/// of several bytes stay aligned.
pub(crate) fn header(encoding: &Encoding, parts: &[Parts], metadata: Metadata) -> Header {
    let blocks = parts.iter().map(Parts::blocks).sum();
    let scale = (SCALE.to_owned(), Slot { dtype: DType::F32, shape: vec![blocks] });
    let scale = encoding.has_scales().then_some(&scale);
    let values = parts.iter().map(|parts| &parts.value);
    let indexes = parts.iter().filter_map(|parts| parts.index.as_ref());
    let order: Vec<&(String, Slot)> = scale.into_iter().chain(values).chain(indexes).collect();
    let mut header = Header::of(&order.iter().copied().cloned().collect(), metadata);
    let mut begin = 0;
    for (name, slot) in order {
        let end = begin + slot.byte_len();
        if let Some(span) = header.spans.get_mut(name) {
            (span.begin, span.end) = (begin, end);
        }
        begin = end;
    }
    header
}

/// Reads as much of a file as its header takes.
pub(crate) fn read_header(file: &dyn ReadAt, file_len: u64) -> Result<Header, DecodeError> {
    let mut start = vec![0; file_len.min(PREFIX_LEN) as usize];
    file.read_at(0, &mut start)?;
    if let Some((prefix, _)) = start.split_first_chunk() {
        // A header that claims more than this is refused unread.
        let text_len = u64::from_le_bytes(*prefix).min(HEADER_LEN_MAX as u64);
        let len = (PREFIX_LEN + text_len).min(file_len);
        start.resize(len as usize, 0);
        file.read_at(0, &mut start)?;
    }
    Ok(Header::read(&start, file_len)?)
}
