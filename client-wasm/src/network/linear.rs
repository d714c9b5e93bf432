//! Least squares: `y = w . x + b`, loss `(y - label)^2 / 2`.

use super::Verdict;
use crate::kernel::{add_scaled, dot};

/// Adds the gradient of one example. Parameters are `w` then `b`.
#[inline(always)]
pub(super) fn learn(parameters: &[f64], x: &[f64], label: f64, gradient: &mut [f64]) {
    let error = predict(parameters, x) - label;
    add_scaled(&mut gradient[..x.len()], error, x);
    gradient[x.len()] += error;
}

#[inline(always)]
pub(super) fn judge(parameters: &[f64], x: &[f64], label: f64) -> Verdict {
    let error = predict(parameters, x) - label;
    Verdict { loss: 0.5 * error * error, hit: false }
}

#[inline(always)]
fn predict(parameters: &[f64], x: &[f64]) -> f64 {
    dot(&parameters[..x.len()], x) + parameters[x.len()]
}
