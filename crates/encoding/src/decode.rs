//! From the bytes of a file back to an update.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    ops::Range,
};

use bytes::Bytes;
use protocol::{DType, Schema, Slot, Tensor, Tensors, tensor::safetensors::Metadata};

use crate::{
    DecodeError, Element, Encoding, Inflate, ReadAt, Source,
    entry::{Entry, read_scales, wrong_scales},
    number,
    wire::{ENCODING, SCALE, read_header},
};

/// Values that are read together.
const PIECE: usize = 8 << 10;

/// An encoded file (no longer compressed) that was checked but for its values, to be read from any
/// place on. Holds the scales, and a few words for every kilobyte of an index.
#[derive(Debug)]
pub struct Reader<R> {
    file: R,
    is_delta: bool,
    metadata: Metadata,
    schema: Schema,
    /// In the order of their names.
    tensors: Vec<Entry>,
}

/// What comes of a payload in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub metadata: Metadata,
    pub tensors: Tensors,
    /// What stood behind a compressed file: see [`Inflate::finish`].
    pub tail: Bytes,
}

/// Decodes a payload that is in memory. See [`Inflate`] and [`Reader`] for one that is not.
pub fn decode(
    encoding: &Encoding,
    base: &Tensors,
    payload: &Bytes,
) -> Result<Decoded, DecodeError> {
    let schema = &base.schema();
    let (file, tail) = if encoding.is_compressed() {
        let mut inflate = Inflate::new(&payload[..], encoding.file_bytes_max(schema));
        let mut file = vec![];
        inflate.read_to_end(&mut file)?;
        (file.into(), inflate.finish()?.into())
    } else {
        (payload.clone(), Bytes::new())
    };
    let len = file.len() as u64;
    let reader = Reader::open(encoding, schema, file, len)?;
    let tensors = reader.decode(base)?;
    Ok(Decoded { metadata: reader.metadata, tensors, tail })
}

impl<R: ReadAt> Reader<R> {
    /// Reads the header, the scales and the indexes of a file of `file_len` bytes, and checks them
    /// against the encoding that the round asks for and the schema of its base model.
    pub fn open(
        encoding: &Encoding,
        schema: &Schema,
        file: R,
        file_len: u64,
    ) -> Result<Self, DecodeError> {
        encoding.check(schema)?;
        let max = encoding.file_bytes_max(schema);
        if file_len > max {
            return Err(DecodeError::TooLarge { max });
        }
        let header = read_header(&file, file_len)?;
        let (asked, found) = (encoding.to_string(), header.metadata.get(ENCODING));
        if found != Some(&asked) {
            let found = found.map(|found| found.chars().take(80).collect());
            return Err(DecodeError::Encoding { asked, found });
        }
        let all_scales = read_scales(encoding, &header, &file)?;
        let mut scales = &all_scales[..];
        let mut tensors: Vec<Entry> = vec![];
        for named in schema.iter() {
            let first = tensors.last().map_or(0, |last| last.first + last.count);
            tensors.push(Entry::open(encoding, &header, (&file, &mut scales), named, first)?);
        }
        if !scales.is_empty() {
            return Err(wrong_scales());
        }
        let own = encoding.has_scales().then_some(SCALE);
        let known: BTreeSet<&str> = tensors.iter().flat_map(Entry::names).chain(own).collect();
        if let Some(extra) = header.spans.keys().find(|name| !known.contains(name.as_str())) {
            return Err(DecodeError::Shape(format!("tensor {extra:?} is not in the base model")));
        }
        let is_delta = encoding.is_delta();
        Ok(Self { file, is_delta, metadata: header.metadata, schema: schema.clone(), tensors })
    }

    /// What travels beside the tensors.
    pub const fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// How many parameters there are.
    pub fn parameters(&self) -> usize {
        self.tensors.last().map_or(0, |last| last.first + last.count)
    }

    /// Reads the values of a tensor that stand in `range`, given the base's there (which may be
    /// empty where the encoding is not relative to it). What it says is rounded to the tensor's
    /// type. Panics on a tensor, a range or an element type that the schema does not have.
    pub fn read<T: Element>(
        &self,
        tensor: &str,
        range: Range<usize>,
        base: &[T],
        out: &mut [T],
    ) -> Result<(), DecodeError> {
        let found = self.tensors.binary_search_by(|entry| entry.name.as_str().cmp(tensor));
        let entry = &self.tensors[found.expect("a tensor of the schema")];
        self.read_entry(entry, range, base, out)
    }

    /// The same over all parameters, tensors in the order of their names one after the other.
    pub fn read_flat<T: Element>(
        &self,
        range: Range<usize>,
        base: &[T],
        out: &mut [T],
    ) -> Result<(), DecodeError> {
        assert!(range.end <= self.parameters(), "a range of the parameters");
        let skip = self.tensors.partition_point(|it| it.first + it.count <= range.start);
        for entry in self.tensors[skip..].iter().take_while(|it| it.first < range.end) {
            let from = entry.first.max(range.start);
            let to = (entry.first + entry.count).min(range.end);
            let own = from - range.start..to - range.start;
            let base = base.get(own.clone()).unwrap_or_default();
            self.read_entry(entry, from - entry.first..to - entry.first, base, &mut out[own])?;
        }
        Ok(())
    }

    /// All tensors.
    pub fn decode(&self, base: &dyn Source) -> Result<Tensors, DecodeError> {
        let tensors = self.tensors.iter().map(|entry| {
            let mut data = Vec::with_capacity(entry.slot.byte_len());
            self.write_entry(entry, base, &mut data)?;
            let tensor = Tensor::typed(entry.slot.clone(), data.into());
            Ok((entry.name.clone(), tensor.expect("as many bytes as its slot has")))
        });
        tensors.collect()
    }

    /// Writes the canonical bytes: the tensors in the order of their names, each in its type. Into
    /// a sink, it is the check that every value is finite.
    pub fn write_canonical(
        &self,
        base: &dyn Source,
        out: &mut dyn Write,
    ) -> Result<(), DecodeError> {
        self.tensors.iter().try_for_each(|entry| self.write_entry(entry, base, out))
    }

    /// Of the base model.
    pub const fn schema(&self) -> &Schema {
        &self.schema
    }

    fn write_entry(
        &self,
        entry: &Entry,
        base: &dyn Source,
        out: &mut dyn Write,
    ) -> Result<(), DecodeError> {
        match entry.slot.dtype {
            DType::F64 => self.write_values::<f64>(entry, base, out),
            DType::F32 | DType::F16 | DType::BF16 | DType::I8 => {
                self.write_values::<f32>(entry, base, out)
            }
        }
    }

    fn write_values<T: Element>(
        &self,
        entry: &Entry,
        source: &dyn Source,
        out: &mut dyn Write,
    ) -> Result<(), DecodeError> {
        let Slot { dtype, .. } = entry.slot;
        let (mut bytes, mut base, mut values) = (vec![], vec![], vec![]);
        for range in split(&(0..entry.count)) {
            if self.is_delta {
                bytes.resize(range.len() * dtype.size(), 0);
                base.resize(range.len(), T::default());
                source.read(&entry.name, (range.start * dtype.size()) as u64, &mut bytes)?;
                number::widen(dtype, &bytes, &mut base);
            }
            values.resize(range.len(), T::default());
            self.read_entry(entry, range, &base, &mut values)?;
            bytes.clear();
            number::narrow(dtype, &values, &mut bytes);
            out.write_all(&bytes)?;
        }
        Ok(())
    }

    fn read_entry<T: Element>(
        &self,
        entry: &Entry,
        range: Range<usize>,
        base: &[T],
        out: &mut [T],
    ) -> Result<(), DecodeError> {
        assert!(range.start <= range.end && range.end <= entry.count, "a range of the tensor");
        assert!(T::holds(entry.slot.dtype), "F64 is read as f64");
        assert_eq!(out.len(), range.len(), "a place for each value");
        assert!(!self.is_delta || base.len() == out.len(), "a base for each value");
        let start = range.start;
        match &entry.index {
            None => {
                for range in split(&range) {
                    let own = range.start - start..range.end - start;
                    let base = base.get(own.clone()).filter(|_| self.is_delta);
                    self.sum(entry, range, base, &mut out[own])?;
                }
            }
            Some(index) => {
                out.copy_from_slice(base);
                let visited = index.visit(&self.file, range, |before, places| {
                    let base: Vec<T> = places.iter().map(|place| base[place - start]).collect();
                    let mut sums = vec![T::default(); places.len()];
                    self.sum(entry, before..before + places.len(), Some(&base), &mut sums)?;
                    places.iter().zip(sums).for_each(|(place, sum)| out[place - start] = sum);
                    Ok(())
                });
                visited.map_err(|why| why.of(&entry.name))?;
            }
        }
        match number::not_finite(out) {
            Some(place) => {
                Err(DecodeError::NotFinite { name: entry.name.clone(), place: start + place })
            }
            None => Ok(()),
        }
    }

    /// The values that are numbers `range` in the file, added to the base: one sum, rounded once to
    /// the tensor's type.
    fn sum<T: Element>(
        &self,
        entry: &Entry,
        range: Range<usize>,
        base: Option<&[T]>,
        out: &mut [T],
    ) -> Result<(), DecodeError> {
        match entry.slot.dtype {
            DType::F64 => {
                let mut values = entry.values::<f64>(&self.file, range)?;
                for (value, base) in values.iter_mut().zip(base.into_iter().flatten()) {
                    *value += base.to_f64();
                }
                out.iter_mut().zip(values).for_each(|(out, value)| *out = T::from_f64(value));
            }
            dtype @ (DType::F32 | DType::F16 | DType::BF16 | DType::I8) => {
                let mut values = entry.values::<f32>(&self.file, range)?;
                for (value, base) in values.iter_mut().zip(base.into_iter().flatten()) {
                    *value += base.to_f32();
                }
                number::round(dtype, &mut values);
                out.iter_mut().zip(values).for_each(|(out, value)| *out = T::from_f32(value));
            }
        }
        Ok(())
    }
}

/// A range in pieces that begin where scales do.
fn split(range: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let Range { start, end } = *range;
    let first = start / PIECE;
    (first..end.div_ceil(PIECE)).map(move |at| (at * PIECE).max(start)..((at + 1) * PIECE).min(end))
}
