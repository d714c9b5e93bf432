//! Softmax regression: `p = softmax(x w + b)`, loss `-ln p[label]`; of four examples at once.

use crate::lanes::{Lanes, add_all, add_outer, affine};

/// The logits of examples. Parameters are `w` row by row, then `b`.
#[inline(always)]
pub(super) fn logits(parameters: &[f64], x: &[Lanes], out: &mut [Lanes]) {
    let (w, b) = parameters.split_at(x.len() * out.len());
    affine(out, x, w, b);
}

/// Adds the gradient of examples, given that of their logits.
#[inline(always)]
pub(super) fn learn(x: &[Lanes], delta: &[Lanes], gradient: &mut [f64]) {
    let (w, b) = gradient.split_at_mut(x.len() * delta.len());
    add_outer(w, x, delta);
    add_all(b, delta);
}
