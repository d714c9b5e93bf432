//! Tensors of `I8` and the scales beside them: a number is its whole number times its scale.
//!
//! The scale of tensor `w` is the tensor `w.scale` of `F32`: a scalar, or one number for each step
//! of the first dimension of `w`. Scales belong to the encoding: they are not parameters.

use super::{DType, Tensor, number};

/// What the name of a scale ends in.
pub const SUFFIX: &str = ".scale";

/// Largest whole number that is written; -128 is read, too.
const WHOLE_MAX: f64 = 127.0;

/// Whether a tensor of this shape can be the scale of one of shape `of`.
pub(super) fn fits(scale: &[usize], of: &[usize]) -> bool {
    scale.is_empty() || (scale.len() == 1 && of.first() == scale.first())
}

/// The numbers that whole numbers and scales stand for, computed in `f32`.
pub(super) fn multiply(whole: &Tensor, scale: &Tensor) -> Vec<f32> {
    let scales: Vec<f32> = number::f32s(scale.data()).collect();
    let row = row_len(whole.len(), scales.len());
    let rows = whole.data().chunks(row).zip(scales);
    rows.flat_map(|(row, scale)| row.iter().map(move |q| f32::from(q.cast_signed()) * scale))
        .collect()
}

/// Whole numbers and scales nearest to `values`: the largest of a row becomes 127.
pub(super) fn divide(values: &[f64], scale_shape: &[usize]) -> (Vec<f64>, Vec<f64>) {
    let count = scale_shape.iter().product();
    let mut wholes = Vec::with_capacity(values.len());
    let mut scales = vec![0.0; count];
    for (row, scale) in values.chunks(row_len(values.len(), count)).zip(&mut scales) {
        // A number that is not finite must not get lost: its scale shows it.
        let largest =
            row.iter().fold(
                0.0,
                |most: f64, value| {
                    if value.is_nan() { f64::NAN } else { most.max(value.abs()) }
                },
            );
        *scale = f64::from((largest / WHOLE_MAX) as f32);
        let divisor = if *scale == 0.0 { 1.0 } else { *scale };
        let whole = |value: &f64| (value / divisor).clamp(-WHOLE_MAX, WHOLE_MAX);
        wholes.extend(row.iter().map(whole));
    }
    (wholes, scales)
}

/// Whether no product with one of these scales can leave the range of `f32`.
pub(super) fn all_finite(scale: &Tensor) -> bool {
    scale.dtype() == DType::F32
        && number::f32s(scale.data()).all(|scale| (scale * -128.0).is_finite())
}

/// Numbers that share a scale; at least 1, as slices are cut by it.
fn row_len(values: usize, scales: usize) -> usize {
    (values / scales.max(1)).max(1)
}
