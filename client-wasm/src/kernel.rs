//! The hot loops, written in fixed lanes so that they vectorise and give the same bits everywhere.
//!
//! They are unrolled because a guest's loop pays for the host's interruption check at every turn.

use crate::exact;

const LANES: usize = 4;
/// What is done between two checks.
const BLOCK: usize = 16;

/// `y += a * x`
#[inline(always)]
pub(crate) fn add_scaled(y: &mut [f64], a: f64, x: &[f64]) {
    let mut ys = y.chunks_exact_mut(BLOCK);
    let mut xs = x.chunks_exact(BLOCK);
    for (y, x) in ys.by_ref().zip(xs.by_ref()) {
        for lane in 0..BLOCK {
            y[lane] += a * x[lane];
        }
    }
    let mut ys = ys.into_remainder().chunks_exact_mut(LANES);
    let mut xs = xs.remainder().chunks_exact(LANES);
    for (y, x) in ys.by_ref().zip(xs.by_ref()) {
        for lane in 0..LANES {
            y[lane] += a * x[lane];
        }
    }
    for (y, x) in ys.into_remainder().iter_mut().zip(xs.remainder()) {
        *y += a * x;
    }
}

/// `sum(x * y)`, summed lane by lane.
#[inline(always)]
pub(crate) fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let mut xs = x.chunks_exact(BLOCK);
    let mut ys = y.chunks_exact(BLOCK);
    for (x, y) in xs.by_ref().zip(ys.by_ref()) {
        for at in 0..BLOCK {
            sums[at % LANES] += x[at] * y[at];
        }
    }
    let mut xs = xs.remainder().chunks_exact(LANES);
    let mut ys = ys.remainder().chunks_exact(LANES);
    for (x, y) in xs.by_ref().zip(ys.by_ref()) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let rest: f64 = xs.remainder().iter().zip(ys.remainder()).map(|(x, y)| x * y).sum();
    (sums[0] + sums[2]) + (sums[1] + sums[3]) + rest
}

/// `out = bias + x * matrix`, with `matrix` of shape `[x.len(), out.len()]`, row by row.
///
/// Rows go four at a time: short ones would be more checks than arithmetic. Every number of `out`
/// is still added to in the order of the rows.
#[inline(always)]
pub(crate) fn affine(out: &mut [f64], x: &[f64], matrix: &[f64], bias: &[f64]) {
    out.copy_from_slice(bias);
    let width = bias.len();
    let mut xs = x.chunks_exact(LANES);
    let mut rows = matrix.chunks_exact(LANES * width);
    for (x, rows) in xs.by_ref().zip(rows.by_ref()) {
        let (a, rest) = rows.split_at(width);
        let (b, rest) = rest.split_at(width);
        let (c, d) = rest.split_at(width);
        let mut at = 0;
        let mut outs = out.chunks_exact_mut(LANES);
        for out in outs.by_ref() {
            let end = at + LANES;
            let (a, b, c, d) = (&a[at..end], &b[at..end], &c[at..end], &d[at..end]);
            for lane in 0..LANES {
                out[lane] = out[lane] + x[0] * a[lane] + x[1] * b[lane];
                out[lane] = out[lane] + x[2] * c[lane] + x[3] * d[lane];
            }
            at = end;
        }
        for (out, at) in outs.into_remainder().iter_mut().zip(at..) {
            *out = *out + x[0] * a[at] + x[1] * b[at] + x[2] * c[at] + x[3] * d[at];
        }
    }
    for (x, row) in xs.remainder().iter().zip(rows.remainder().chunks_exact(width)) {
        add_scaled(out, *x, row);
    }
}

/// `gradient += outer(x, delta)`, the transpose of [`affine`] with respect to its matrix.
#[inline(always)]
pub(crate) fn add_outer(gradient: &mut [f64], x: &[f64], delta: &[f64]) {
    let width = delta.len();
    let mut xs = x.chunks_exact(LANES);
    let mut rows = gradient.chunks_exact_mut(LANES * width);
    for (x, rows) in xs.by_ref().zip(rows.by_ref()) {
        let (a, rest) = rows.split_at_mut(width);
        let (b, rest) = rest.split_at_mut(width);
        let (c, d) = rest.split_at_mut(width);
        let mut at = 0;
        let mut deltas = delta.chunks_exact(LANES);
        for delta in deltas.by_ref() {
            let end = at + LANES;
            let (a, b) = (&mut a[at..end], &mut b[at..end]);
            let (c, d) = (&mut c[at..end], &mut d[at..end]);
            for lane in 0..LANES {
                a[lane] += x[0] * delta[lane];
                b[lane] += x[1] * delta[lane];
                c[lane] += x[2] * delta[lane];
                d[lane] += x[3] * delta[lane];
            }
            at = end;
        }
        for (delta, at) in deltas.remainder().iter().zip(at..) {
            a[at] += x[0] * delta;
            b[at] += x[1] * delta;
            c[at] += x[2] * delta;
            d[at] += x[3] * delta;
        }
    }
    for (x, row) in xs.remainder().iter().zip(rows.into_remainder().chunks_exact_mut(width)) {
        add_scaled(row, *x, delta);
    }
}

/// Turns logits into `probability - target` in place; gives the cross entropy and the best class.
///
/// The largest logit is taken off first, so that no `exp` overflows.
#[inline(always)]
pub(crate) fn softmax_cross_entropy(logits: &mut [f64], class: usize) -> (f64, usize) {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    let (highest, own) = (logits[best], logits[class]);
    let mut total = 0.0;
    for logit in logits.iter_mut() {
        *logit = exact::exp(*logit - highest);
        total += *logit;
    }
    for logit in logits.iter_mut() {
        *logit /= total;
    }
    logits[class] -= 1.0;
    (exact::ln(total) - (own - highest), best)
}

/// One step of gradient descent: `w -= lr * (gradient / batch + l2 * w)`.
#[inline(always)]
pub(crate) fn descend(weights: &mut [f64], gradient: &[f64], lr_over_batch: f64, shrink: f64) {
    let mut weights = weights.chunks_exact_mut(BLOCK);
    let mut gradient = gradient.chunks_exact(BLOCK);
    for (weights, gradient) in weights.by_ref().zip(gradient.by_ref()) {
        for lane in 0..BLOCK {
            weights[lane] -= lr_over_batch * gradient[lane] + shrink * weights[lane];
        }
    }
    let rest = weights.into_remainder().iter_mut().zip(gradient.remainder());
    for (weight, gradient) in rest {
        *weight -= lr_over_batch * gradient + shrink * *weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_gives_what_the_plain_loop_gives() {
        for len in 0..=53_u32 {
            let x: Vec<f64> = (0..len).map(|i| f64::from(i % 13) - 3.0).collect();
            let y: Vec<f64> = (0..len).map(|i| f64::from(i * i % 31) + 1.0).collect();
            let plain: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
            assert_eq!(dot(&x, &y), plain, "dot of {len}");
            let mut sum = y.clone();
            add_scaled(&mut sum, 2.0, &x);
            let plain: Vec<f64> = x.iter().zip(&y).map(|(x, y)| y + 2.0 * x).collect();
            assert_eq!(sum, plain, "add_scaled of {len}");
        }
    }

    #[test]
    fn every_shape_gives_what_the_plain_loops_give() {
        for (ins, outs) in [(1, 1), (3, 5), (4, 4), (5, 10), (8, 3), (13, 18)] {
            let number = |at: usize| (at * 37 % 101) as f64 / 7.0 - 5.0;
            let x: Vec<f64> = (0..ins).map(number).collect();
            let bias: Vec<f64> = (0..outs).map(|at| number(at + 5)).collect();
            let matrix: Vec<f64> = (0..ins * outs).map(|at| number(at + 11)).collect();
            let (mut out, mut plain) = (vec![0.0; outs], bias.clone());
            affine(&mut out, &x, &matrix, &bias);
            for (x, row) in x.iter().zip(matrix.chunks(outs)) {
                plain.iter_mut().zip(row).for_each(|(sum, value)| *sum += x * value);
            }
            assert_eq!(out, plain, "affine of {ins} and {outs}");
            let (mut gradient, mut plain) = (matrix.clone(), matrix.clone());
            add_outer(&mut gradient, &x, &bias);
            for (x, row) in x.iter().zip(plain.chunks_mut(outs)) {
                row.iter_mut().zip(&bias).for_each(|(sum, value)| *sum += x * value);
            }
            assert_eq!(gradient, plain, "outer product of {ins} and {outs}");
        }
    }

    #[test]
    fn huge_logits_give_a_finite_loss() {
        let mut logits = [1e300, -1e300, 0.0];
        let (loss, best) = softmax_cross_entropy(&mut logits, 0);
        assert_eq!((loss, best), (0.0, 0));
        assert_eq!(logits, [0.0, 0.0, 0.0]);
    }

    #[test]
    fn equal_logits_lose_the_logarithm_of_the_classes() {
        let (loss, _) = softmax_cross_entropy(&mut [5.0; 10], 3);
        assert!((loss - 10_f64.ln()).abs() < 1e-15);
    }
}
