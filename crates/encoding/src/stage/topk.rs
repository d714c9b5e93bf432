//! `topk:<fraction>`: of each tensor only the values of largest magnitude, with error feedback.
//!
//! What is left out, and what a shorter type loses of what is sent, is kept as a residual and added
//! the next time: without that, a value that is never among the largest is never learned (Stich,
//! Cordonnier, Jaggi, "Sparsified SGD with memory", NeurIPS 2018, algorithm 1; Karimireddy, Rebjock,
//! Stich, Jaggi, "Error feedback fixes SignSGD and other gradient compression schemes", ICML 2019,
//! algorithm 2). Values that were not sent are read as the base's, bit by bit.
//!
//! `w.value` holds the values sent, `w.index` where they stand, whichever is shorter of
//! - a bitmap of `count / 8` bytes, rounded up: bit `i % 8` of byte `i / 8`;
//! - gaps: for each value the number of places skipped before it, as LEB128 of as few bytes as
//!   possible. (Plain `u32` would be longer than this for all tensors below 2^28 values.)
//!
//! It is the bitmap if it has that length. Neither can say a place twice or out of order.

use super::{Place, Stage};
use crate::Fraction;

pub(super) const STAGE: Stage = Stage {
    name: "topk",
    form: "topk:<fraction>",
    takes: "a fraction above 0 and below 1, like topk:0.01",
    place: Place::Selection,
    needs: Some("delta"),
    set: |encoding, argument| {
        encoding.topk = argument.and_then(fraction);
        encoding.topk.is_some()
    },
    show: |encoding| encoding.topk.map(|fraction| format!("topk:{fraction}")),
};

/// Digits and a point; exponents, signs and words are for others.
fn fraction(text: &str) -> Option<Fraction> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    plain.then(|| text.parse().ok().and_then(Fraction::new)).flatten()
}

/// The magnitude from which on values are sent, and how many of exactly that magnitude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Threshold {
    bits: u32,
    /// Of equals, the first ones are sent.
    equals: usize,
}

/// Finds the `keep`-th largest magnitude in three passes over the values, eleven bits at a time:
/// the bits of an `f32` without its sign are in the order of its magnitude.
#[derive(Debug)]
pub(crate) struct Select {
    counts: Vec<usize>,
    /// The upper bits, as far as they are known.
    prefix: u32,
    round: usize,
    keep: usize,
}

/// Bits below those that a pass looks at.
const SHIFTS: [u32; Select::PASSES] = [21, 10, 0];
/// Bits that a pass looks at.
const WIDTHS: [u32; Select::PASSES] = [10, 11, 10];

impl Select {
    pub(crate) const PASSES: usize = 3;

    pub(crate) fn new(keep: usize) -> Self {
        Self { counts: vec![0; 1 << WIDTHS[0]], prefix: 0, round: 0, keep }
    }

    /// Looks at some values; each pass has to show all of them.
    pub(crate) fn look(&mut self, values: &[f32]) {
        let (shift, width) = (SHIFTS[self.round], WIDTHS[self.round]);
        for value in values {
            let bits = magnitude(*value) >> shift;
            if bits >> width == self.prefix {
                self.counts[(bits & ((1 << width) - 1)) as usize] += 1;
            }
        }
    }

    /// Ends a pass; after the last there is the answer.
    pub(crate) fn end_pass(&mut self) -> Option<Threshold> {
        let mut bucket = self.counts.len();
        let mut in_bucket = 0;
        while self.keep > 0 && bucket > 0 {
            bucket -= 1;
            in_bucket = self.counts[bucket];
            if in_bucket >= self.keep {
                break;
            }
            self.keep -= in_bucket;
        }
        debug_assert!(in_bucket >= self.keep, "there are as many values as are kept");
        self.prefix = (self.prefix << WIDTHS[self.round]) | bucket as u32;
        self.round += 1;
        let Some(width) = WIDTHS.get(self.round) else {
            // Nothing is gained by sending zeros.
            let equals = if self.prefix == 0 { 0 } else { self.keep };
            return Some(Threshold { bits: self.prefix, equals });
        };
        self.counts = vec![0; 1 << width];
        None
    }
}

impl Threshold {
    /// Whether the next value, in order, is sent.
    pub(crate) fn takes(&mut self, value: f32) -> bool {
        let bits = magnitude(value);
        if bits == self.bits && self.equals > 0 {
            self.equals -= 1;
            return true;
        }
        bits > self.bits
    }
}

const fn magnitude(value: f32) -> u32 {
    value.to_bits() & !(1 << 31)
}
