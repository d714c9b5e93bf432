//! One hidden layer: `a = max(0, x w1 + b1)`, `p = softmax(a w2 + b2)`, loss `-ln p[label]`.

use super::{Verdict, softmax};
use crate::kernel::{add_outer, add_scaled, affine, dot};

/// Adds the gradient of one example; gives its loss. Parameters are `w1`, `b1`, `w2`, `b2`.
///
/// `scratch` holds two hidden layers (activations, and their gradient), then the classes.
#[inline(always)]
pub(super) fn learn(
    hidden: usize,
    parameters: &[f64],
    (x, label): (&[f64], f64),
    gradient: &mut [f64],
    scratch: &mut [f64],
) -> f64 {
    let verdict = judge(hidden, parameters, (x, label), scratch);
    let (activations, rest) = scratch.split_at_mut(hidden);
    let (back, delta) = rest.split_at_mut(hidden);
    let (_, head) = parameters.split_at((x.len() + 1) * hidden);
    for ((back, active), row) in
        back.iter_mut().zip(&*activations).zip(head.chunks_exact(delta.len()))
    {
        *back = if *active > 0.0 { dot(row, delta) } else { 0.0 };
    }
    let (g1, g2) = gradient.split_at_mut((x.len() + 1) * hidden);
    let (w1, b1) = g1.split_at_mut(x.len() * hidden);
    let (w2, b2) = g2.split_at_mut(hidden * delta.len());
    add_outer(w2, activations, delta);
    add_scaled(b2, 1.0, delta);
    add_outer(w1, x, back);
    add_scaled(b1, 1.0, back);
    verdict.loss
}

/// Leaves the activations at the front of `scratch`, the gradient of the logits at its end.
#[inline(always)]
pub(super) fn judge(
    hidden: usize,
    parameters: &[f64],
    (x, label): (&[f64], f64),
    scratch: &mut [f64],
) -> Verdict {
    let (activations, rest) = scratch.split_at_mut(hidden);
    let (body, head) = parameters.split_at((x.len() + 1) * hidden);
    let (w1, b1) = body.split_at(x.len() * hidden);
    affine(activations, x, w1, b1);
    for active in activations.iter_mut() {
        // Not `max`, which would hide a NaN.
        if *active < 0.0 {
            *active = 0.0;
        }
    }
    softmax::judge(head, activations, label, &mut rest[hidden..])
}
