//! The next token from the last one: `p = softmax(w[token] + b)`, loss `-ln p[next]`; of four
//! examples at once.

use crate::lanes::{LANES, Lanes, add_all, add_lane, pack};

/// The logits of examples. Parameters are `w`, one row a token, then `b`.
#[inline(always)]
pub(super) fn logits(parameters: &[f64], tokens: [usize; LANES], out: &mut [Lanes]) {
    let width = out.len();
    let (w, b) = parameters.split_at(width * width);
    pack(out, tokens.map(|token| &w[token * width..(token + 1) * width]));
    for (out, bias) in out.iter_mut().zip(b) {
        for value in out {
            *value += bias;
        }
    }
}

/// Adds the gradient of examples, given that of their logits.
#[inline(always)]
pub(super) fn learn(tokens: [usize; LANES], delta: &[Lanes], gradient: &mut [f64]) {
    let width = delta.len();
    let (w, b) = gradient.split_at_mut(width * width);
    for (lane, token) in tokens.into_iter().enumerate() {
        add_lane(&mut w[token * width..(token + 1) * width], delta, lane);
    }
    add_all(b, delta);
}

/// The last of the row; rows are not empty.
pub(super) fn token(x: &[f64]) -> usize {
    x.last().map_or(0, |token| *token as usize)
}
