//! One hidden layer: `a = max(0, x w1 + b1)`, `p = softmax(a w2 + b2)`, loss `-ln p[label]`; of
//! four examples at once.

use super::softmax;
use crate::lanes::{Lanes, affine, back};

/// The logits of examples, by way of their activations. Parameters are `w1`, `b1`, `w2`, `b2`.
#[inline(always)]
pub(super) fn logits(
    parameters: &[f64],
    x: &[Lanes],
    activations: &mut [Lanes],
    out: &mut [Lanes],
) {
    let (body, head) = parameters.split_at((x.len() + 1) * activations.len());
    let (w1, b1) = body.split_at(x.len() * activations.len());
    affine(activations, x, w1, b1);
    for active in activations.iter_mut().flatten() {
        // Not `max`, which would hide a NaN.
        *active = if *active < 0.0 { 0.0 } else { *active };
    }
    softmax::logits(head, activations, out);
}

/// Adds the gradient of examples, given that of their logits; `hidden` is for that of the hidden
/// layer.
#[inline(always)]
pub(super) fn learn(
    parameters: &[f64],
    (x, activations): (&[Lanes], &[Lanes]),
    (hidden, delta): (&mut [Lanes], &[Lanes]),
    gradient: &mut [f64],
) {
    let (body, head) = gradient.split_at_mut((x.len() + 1) * activations.len());
    softmax::learn(activations, delta, head);
    let (_, head) = parameters.split_at((x.len() + 1) * activations.len());
    back(hidden, head, delta);
    for (back, active) in hidden.iter_mut().flatten().zip(activations.iter().flatten()) {
        *back = if *active > 0.0 { *back } else { 0.0 };
    }
    softmax::learn(x, hidden, body);
}
