//! One tensor of the model in an encoded file: where its numbers lie, and what they stand for.

use std::ops::Range;

use protocol::{
    DType, Slot,
    tensor::safetensors::{Header, Span},
};

use crate::{
    DecodeError, Element, Encoding, ReadAt,
    index::{self, Index},
    number,
    stage::int8,
    wire::{Parts, SCALE, Sent},
};

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) slot: Slot,
    /// Parameters before it.
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) index: Option<Index>,
    /// The type of its numbers in the file.
    dtype: DType,
    /// Where they begin.
    at: u64,
    /// One for each block, for `I8`.
    scales: Vec<f32>,
    parts: Parts,
}

impl Entry {
    /// Finds the parts of a tensor in a file, and checks all but its values. Takes its scales from
    /// those that are left.
    pub(crate) fn open(
        encoding: &Encoding,
        header: &Header,
        (file, scales): (&dyn ReadAt, &mut &[f32]),
        (name, slot): (&str, &Slot),
        first: usize,
    ) -> Result<Self, DecodeError> {
        let count = slot.count();
        let parts = find(encoding, header, name, slot)?;
        let at = |part: &str| {
            let begin = header.spans.get(part).map_or(0, |span| span.begin);
            (header.data_start() + begin) as u64
        };
        let (own, rest) = scales.split_at_checked(parts.blocks()).ok_or_else(wrong_scales)?;
        *scales = rest;
        let index = match &parts.index {
            Some((part, slot)) => {
                let (values, place) = (parts.value.1.count(), (at(part), slot.byte_len()));
                let index = Index::check(file, place, count, values);
                Some(index.map_err(|why| why.of(name))?)
            }
            None => None,
        };
        let (at, dtype) = (at(&parts.value.0), parts.value.1.dtype);
        let (name, slot) = (name.to_owned(), slot.clone());
        Ok(Self { name, slot, first, count, index, dtype, at, scales: own.to_vec(), parts })
    }

    /// The names of what stands for it in the file.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|(name, _)| name.as_str())
    }

    /// The numbers in `range` of those that were sent.
    pub(crate) fn values<T: Element>(
        &self,
        file: &dyn ReadAt,
        range: Range<usize>,
    ) -> Result<Vec<T>, DecodeError> {
        let size = self.dtype.size();
        let mut bytes = vec![0; range.len() * size];
        file.read_at(self.at + (range.start * size) as u64, &mut bytes)?;
        let mut values = vec![T::default(); range.len()];
        if self.dtype != DType::I8 {
            number::widen(self.dtype, &bytes, &mut values);
            return Ok(values);
        }
        let mut at = 0;
        while at < bytes.len() {
            let block = (range.start + at) / int8::BLOCK;
            let end = ((block + 1) * int8::BLOCK - range.start).min(bytes.len());
            int8::widen(&bytes[at..end], self.scales[block], &mut values[at..end]);
            at = end;
        }
        Ok(values)
    }
}

/// What stands for a tensor in a file, which has it all in the right types and shapes.
fn find(
    encoding: &Encoding,
    header: &Header,
    name: &str,
    slot: &Slot,
) -> Result<Parts, DecodeError> {
    let most = encoding.most(slot);
    let parts = encoding.parts(name, slot, most);
    let sent = match (most, &parts.index) {
        (Sent::Some { values: most, .. }, Some((index, _))) => {
            let values = extent(header, &parts.value.0)?;
            let index_len = extent(header, index)?;
            if values > most {
                let part = &parts.value.0;
                let what =
                    format!("tensor {part:?} has {values} values, at most {most} are asked for");
                return Err(DecodeError::Shape(what));
            }
            if index_len > index::len_max(slot.count()) {
                return Err(index::too_long(name));
            }
            Sent::Some { values, index_len }
        }
        (_, _) => Sent::All,
    };
    let parts = encoding.parts(name, slot, sent);
    for (part, Slot { dtype, shape }) in parts.iter() {
        let found = &span(header, part)?.slot;
        if found.dtype != *dtype || found.shape != *shape {
            let (found_dtype, found_shape) = (found.dtype, &found.shape);
            let what = format!(
                "tensor {part:?} is {found_dtype} of shape {found_shape:?}, not {dtype} of {shape:?}"
            );
            return Err(DecodeError::Shape(what));
        }
    }
    Ok(parts)
}

fn span<'a>(header: &'a Header, part: &str) -> Result<&'a Span, DecodeError> {
    let found = header.spans.get(part);
    found.ok_or_else(|| DecodeError::Shape(format!("tensor {part:?} is missing")))
}

/// Length of a tensor of one dimension.
fn extent(header: &Header, part: &str) -> Result<usize, DecodeError> {
    match span(header, part)?.slot.shape[..] {
        [extent] => Ok(extent),
        ref shape => {
            let what = format!("tensor {part:?} has shape {shape:?}, it takes one dimension");
            Err(DecodeError::Shape(what))
        }
    }
}

/// The scales of all tensors, where there are any.
pub(crate) fn read_scales(
    encoding: &Encoding,
    header: &Header,
    file: &dyn ReadAt,
) -> Result<Vec<f32>, DecodeError> {
    if !encoding.has_scales() {
        return Ok(vec![]);
    }
    let Span { slot, begin, .. } = span(header, SCALE)?;
    if slot.dtype != DType::F32 {
        return Err(wrong_scales());
    }
    let mut scales = vec![0.0; extent(header, SCALE)?];
    let mut bytes = vec![0; slot.byte_len()];
    file.read_at((header.data_start() + begin) as u64, &mut bytes)?;
    number::widen::<f32>(DType::F32, &bytes, &mut scales);
    match scales.iter().position(|scale| !scale.is_finite() || scale.is_sign_negative()) {
        Some(block) => Err(DecodeError::Scale { block, found: scales[block] }),
        None => Ok(scales),
    }
}

pub(crate) fn wrong_scales() -> DecodeError {
    let what = "one F32 for each block of I8";
    DecodeError::Shape(format!("tensor {SCALE:?} does not have {what}"))
}
