//! Softmax regression: `p = softmax(x w + b)`, loss `-ln p[label]`.

use super::Verdict;
use crate::kernel::{add_outer, add_scaled, affine, softmax_cross_entropy};

/// Adds the gradient of one example; gives its loss. Parameters are `w` row by row, then `b`.
#[inline(always)]
pub(super) fn learn(
    parameters: &[f64],
    x: &[f64],
    label: f64,
    gradient: &mut [f64],
    delta: &mut [f64],
) -> f64 {
    let verdict = judge(parameters, x, label, delta);
    let (w, b) = gradient.split_at_mut(x.len() * delta.len());
    add_outer(w, x, delta);
    add_scaled(b, 1.0, delta);
    verdict.loss
}

/// Leaves `probability - target`, the gradient of the logits, in `delta`.
#[inline(always)]
pub(super) fn judge(parameters: &[f64], x: &[f64], label: f64, delta: &mut [f64]) -> Verdict {
    let class = label as usize;
    let (w, b) = parameters.split_at(x.len() * delta.len());
    affine(delta, x, w, b);
    let (loss, best) = softmax_cross_entropy(delta, class);
    Verdict { loss, hit: best == class }
}
