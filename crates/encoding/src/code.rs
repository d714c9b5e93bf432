//! How the values of one tensor become bytes, once they are known.

use protocol::DType;

use crate::{dice::Dice, number, stage::int8};

/// The type on the wire, and what goes with it.
#[derive(Debug)]
pub(crate) struct Code {
    pub(crate) dtype: DType,
    /// One for each block, for `I8`.
    pub(crate) scales: Vec<f32>,
    pub(crate) dice: Dice,
}

impl Code {
    pub(crate) fn scale_bytes(&self) -> Vec<u8> {
        self.scales.iter().copied().flat_map(f32::to_le_bytes).collect()
    }

    /// Appends values, the first of which is number `first`, a multiple of a block. Gives the place
    /// of one that is too large for the type.
    pub(crate) fn put(&self, first: usize, values: &[f32], out: &mut Vec<u8>) -> Option<usize> {
        if self.dtype != DType::I8 {
            let from = out.len();
            number::narrow(self.dtype, values, out);
            return first_infinite(self.dtype, &out[from..]).map(|at| first + at);
        }
        let scales = &self.scales[first / int8::BLOCK..];
        let mut at = first;
        for (block, scale) in values.chunks(int8::BLOCK).zip(scales) {
            if scale.is_infinite() {
                return Some(at);
            }
            int8::round(block, *scale, self.dice, at, out);
            at += block.len();
        }
        None
    }

    /// All values as they arrive.
    pub(crate) fn get(&self, bytes: &[u8], out: &mut [f32]) {
        if self.dtype != DType::I8 {
            return number::widen(self.dtype, bytes, out);
        }
        let blocks = bytes.chunks(int8::BLOCK).zip(out.chunks_mut(int8::BLOCK));
        for ((bytes, out), scale) in blocks.zip(&self.scales) {
            int8::widen(bytes, *scale, out);
        }
    }
}

fn first_infinite(dtype: DType, bytes: &[u8]) -> Option<usize> {
    let mut values = vec![0.0_f32; bytes.len() / dtype.size()];
    number::widen(dtype, bytes, &mut values);
    number::not_finite(&values)
}
