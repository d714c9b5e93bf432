//! The next token from the last one: `p = softmax(w[token] + b)`, loss `-ln p[next]`.

use super::Verdict;
use crate::kernel::{add_scaled, softmax_cross_entropy};

/// Adds the gradient of one example; gives its loss. Parameters are `w`, one row a token, then `b`.
#[inline(always)]
pub(super) fn learn(
    parameters: &[f64],
    (x, label): (&[f64], f64),
    gradient: &mut [f64],
    delta: &mut [f64],
) -> f64 {
    let verdict = judge(parameters, (x, label), delta);
    let (w, b) = gradient.split_at_mut(delta.len() * delta.len());
    add_scaled(row_mut(w, x, delta.len()), 1.0, delta);
    add_scaled(b, 1.0, delta);
    verdict.loss
}

/// Leaves `probability - target`, the gradient of the logits, in `delta`.
#[inline(always)]
pub(super) fn judge(parameters: &[f64], (x, label): (&[f64], f64), delta: &mut [f64]) -> Verdict {
    let next = label as usize;
    let (w, b) = parameters.split_at(delta.len() * delta.len());
    delta.copy_from_slice(b);
    let start = token(x) * delta.len();
    add_scaled(delta, 1.0, &w[start..start + delta.len()]);
    let (loss, best) = softmax_cross_entropy(delta, next);
    Verdict { loss, hit: best == next }
}

fn row_mut<'a>(w: &'a mut [f64], x: &[f64], len: usize) -> &'a mut [f64] {
    let start = token(x) * len;
    &mut w[start..start + len]
}

/// The last of the row; rows are not empty.
fn token(x: &[f64]) -> usize {
    x.last().map_or(0, |token| *token as usize)
}
