//! From an update to the bytes of its file.

use std::{fmt, io::Write};

use bytes::Bytes;
use protocol::{
    DType, Digest, Schema, Slot, Tensors,
    tensor::safetensors::{HEADER_LEN_MAX, Metadata},
};

use crate::{
    Deflate, EncodeError, Encoding, Fraction, ReadAt, Source,
    code::Code,
    dice::Dice,
    index::IndexWriter,
    number,
    numbers::{Numbers, difference, split},
    stage::{int8, topk::Select},
    wire::{self, ENCODING, Parts, Sent},
};

/// An update to be encoded.
pub struct Job<'a> {
    pub encoding: &'a Encoding,
    /// Of the base model; the update's is the same.
    pub schema: &'a Schema,
    pub update: &'a dyn Source,
    pub base: &'a dyn Source,
    /// What earlier updates left out: an `F32` for each parameter, tensors in the order of their
    /// names. None at first, and after a model of another schema.
    pub residual: Option<&'a dyn ReadAt>,
    /// Whatever makes this update different from others, like the digest of round and proplet.
    pub seed: Digest,
    /// What travels beside the tensors; `encoding` is added.
    pub metadata: Metadata,
}

/// What comes of an update in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    pub file: Bytes,
    /// To be handed in with the next update, once this one was counted; empty without top-k.
    pub residual: Bytes,
}

/// Encodes an update that is in memory. See [`Job`] for one that is not.
pub fn encode(
    encoding: &Encoding,
    (update, base): (&Tensors, &Tensors),
    residual: Option<&Bytes>,
    seed: Digest,
    metadata: Metadata,
) -> Result<Encoded, EncodeError> {
    let schema = &base.schema();
    if let Some(difference) = schema.difference(&update.schema()) {
        return Err(EncodeError::Shape(difference));
    }
    let residual = residual.filter(|it| it.len() == schema.parameters() * DType::F32.size());
    let residual = residual.map(|it| it as &dyn ReadAt);
    let job = Job { encoding, schema, update, base, residual, seed, metadata };
    let (mut file, mut rest) = (vec![], vec![]);
    job.write(&mut file, &mut rest)?;
    Ok(Encoded { file: file.into(), residual: rest.into() })
}

/// What is sent of a tensor by top-k.
struct Chosen {
    index: Vec<u8>,
    scales: Vec<u8>,
    values: Vec<u8>,
    count: usize,
}

impl Job<'_> {
    /// Writes the file to `out` and, with top-k, the next residual to `residual_out`. Reads the
    /// sources several times, and holds a few pieces of them, and what top-k chose.
    pub fn write(
        &self,
        out: &mut dyn Write,
        residual_out: &mut dyn Write,
    ) -> Result<(), EncodeError> {
        self.encoding.check(self.schema)?;
        if !self.encoding.is_compressed() {
            return self.write_file(out, residual_out);
        }
        let mut deflate = Deflate::new(out, self.encoding.data_bytes_max(self.schema))?;
        self.write_file(&mut deflate, residual_out)?;
        deflate.finish()?.flush()?;
        Ok(())
    }

    fn write_file(
        &self,
        out: &mut dyn Write,
        residual_out: &mut dyn Write,
    ) -> Result<(), EncodeError> {
        match self.encoding.topk() {
            Some(fraction) => self.write_chosen(fraction, out, residual_out),
            None => self.write_all(out),
        }
    }

    fn write_all(&self, out: &mut dyn Write) -> Result<(), EncodeError> {
        let parts =
            self.schema.iter().map(|(name, slot)| self.encoding.parts(name, slot, Sent::All));
        let parts: Vec<Parts> = parts.collect();
        self.write_header(&parts, out)?;
        let mut codes = vec![];
        for ((name, slot), parts) in self.schema.iter().zip(&parts) {
            let code = self.code((name, slot), parts.value.1.dtype)?;
            out.write_all(&code.scale_bytes())?;
            codes.push(code);
        }
        for ((name, slot), code) in self.schema.iter().zip(&codes) {
            match code.dtype {
                DType::F64 => self.write_wide(name, slot, out)?,
                DType::F32 | DType::F16 | DType::BF16 | DType::I8 => {
                    self.write_dense((name, slot), code, out)?;
                }
            }
        }
        Ok(())
    }

    /// How all values of a tensor become bytes of this type.
    fn code(&self, (name, slot): (&str, &Slot), dtype: DType) -> Result<Code, EncodeError> {
        let mut scales = vec![];
        if dtype == DType::I8 {
            Numbers::new(self, (name, slot), 0).look(|_, piece| {
                scales.extend(piece.chunks(int8::BLOCK).map(int8::scale));
                Ok(())
            })?;
        }
        Ok(Code { dtype, scales, dice: Dice::new(&self.seed, name) })
    }

    fn write_header(&self, parts: &[Parts], out: &mut dyn Write) -> Result<(), EncodeError> {
        let mut metadata = self.metadata.clone();
        metadata.insert(ENCODING.to_owned(), self.encoding.to_string());
        let header = wire::header(self.encoding, parts, metadata).write();
        let (len, max) = (header.len(), HEADER_LEN_MAX);
        if len > max {
            return Err(EncodeError::Header { len, max });
        }
        out.write_all(&header)?;
        // Text and numbers are not compressed by one code.
        Ok(out.flush()?)
    }

    /// A tensor of `F64` that stays one.
    fn write_wide(&self, name: &str, slot: &Slot, out: &mut dyn Write) -> Result<(), EncodeError> {
        let mut bytes = vec![];
        for range in split(slot.count()) {
            let values = difference::<f64>(self, name, slot, range.clone())?;
            if let Some(place) = number::not_finite(&values) {
                let (name, place) = (name.to_owned(), range.start + place);
                return Err(EncodeError::Range { name, place, dtype: DType::F64 });
            }
            bytes.clear();
            number::narrow(DType::F64, &values, &mut bytes);
            out.write_all(&bytes)?;
        }
        Ok(())
    }

    fn write_dense(
        &self,
        (name, slot): (&str, &Slot),
        code: &Code,
        out: &mut dyn Write,
    ) -> Result<(), EncodeError> {
        let mut numbers = Numbers::new(self, (name, slot), 0);
        let mut bytes = vec![];
        let mut too_large = None;
        numbers.look(|first, piece| {
            bytes.clear();
            too_large = too_large.or(code.put(first, piece, &mut bytes));
            Ok(out.write_all(&bytes)?)
        })?;
        too_large.map_or(Ok(()), |place| Err(numbers.range(place, code.dtype)))
    }

    fn write_chosen(
        &self,
        fraction: Fraction,
        out: &mut dyn Write,
        residual_out: &mut dyn Write,
    ) -> Result<(), EncodeError> {
        let (mut parts, mut all) = (vec![], vec![]);
        let mut first = 0;
        for (name, slot) in self.schema.iter() {
            let chosen = self.choose((name, slot), first, fraction, residual_out)?;
            let sent = Sent::Some { values: chosen.count, index_len: chosen.index.len() };
            parts.push(self.encoding.parts(name, slot, sent));
            all.push(chosen);
            first += slot.count();
        }
        self.write_header(&parts, out)?;
        all.iter().try_for_each(|chosen| out.write_all(&chosen.scales))?;
        all.iter().try_for_each(|chosen| out.write_all(&chosen.values))?;
        Ok(all.iter().try_for_each(|chosen| out.write_all(&chosen.index))?)
    }

    fn choose(
        &self,
        (name, slot): (&str, &Slot),
        first: usize,
        fraction: Fraction,
        residual_out: &mut dyn Write,
    ) -> Result<Chosen, EncodeError> {
        let mut numbers = Numbers::new(self, (name, slot), first);
        let threshold = select(&mut numbers, fraction.of(slot.count()))?;
        let mut index = IndexWriter::new(slot.count());
        let mut picked = vec![];
        let mut takes = threshold;
        numbers.look(|from, piece| {
            let places = (from..).zip(piece);
            places.filter(|(_, value)| takes.takes(**value)).for_each(|(place, value)| {
                index.push(place);
                picked.push(*value);
            });
            Ok(())
        })?;
        let most = Sent::Some { values: picked.len(), index_len: 0 };
        let dtype = self.encoding.parts(name, slot, most).value.1.dtype;
        let scales = match dtype {
            DType::I8 => picked.chunks(int8::BLOCK).map(int8::scale).collect(),
            DType::F64 | DType::F32 | DType::F16 | DType::BF16 => vec![],
        };
        let code = Code { dtype, scales, dice: Dice::new(&self.seed, name) };
        let (mut values, count) = (vec![], picked.len());
        if let Some(place) = code.put(0, &picked, &mut values) {
            return Err(numbers.range(place, dtype));
        }
        code.get(&values, &mut picked);
        let mut arrives = picked.into_iter();
        let mut takes = threshold;
        numbers.look(|_, piece| {
            let rest = piece.iter().map(|value| match takes.takes(*value) {
                true => value - arrives.next().unwrap_or_default(),
                false => *value,
            });
            let rest: Vec<u8> = rest.flat_map(f32::to_le_bytes).collect();
            Ok(residual_out.write_all(&rest)?)
        })?;
        Ok(Chosen { index: index.finish(), scales: code.scale_bytes(), values, count })
    }
}

fn select(
    numbers: &mut Numbers<'_>,
    keep: usize,
) -> Result<crate::stage::topk::Threshold, EncodeError> {
    let mut select = Select::new(keep);
    loop {
        numbers.look(|_, piece| {
            select.look(piece);
            Ok(())
        })?;
        if let Some(threshold) = select.end_pass() {
            return Ok(threshold);
        }
    }
}

impl fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("encoding", &self.encoding).finish_non_exhaustive()
    }
}
