//! The hot loops, written in fixed lanes so that they vectorise and give the same bits everywhere.
//!
//! They are unrolled because a guest's loop pays for the host's interruption check at every turn.

const LANES: usize = 4;

/// `y += a * x`
#[inline(always)]
pub(crate) fn add_scaled(y: &mut [f64], a: f64, x: &[f64]) {
    let mut ys = y.chunks_exact_mut(LANES);
    let mut xs = x.chunks_exact(LANES);
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
    let mut xs = x.chunks_exact(LANES);
    let mut ys = y.chunks_exact(LANES);
    let mut sums = [0.0; LANES];
    for (x, y) in xs.by_ref().zip(ys.by_ref()) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let rest: f64 = xs.remainder().iter().zip(ys.remainder()).map(|(x, y)| x * y).sum();
    (sums[0] + sums[2]) + (sums[1] + sums[3]) + rest
}

/// `out = bias + x * matrix`, with `matrix` of shape `[x.len(), out.len()]`, row by row.
#[inline(always)]
pub(crate) fn affine(out: &mut [f64], x: &[f64], matrix: &[f64], bias: &[f64]) {
    out.copy_from_slice(bias);
    for (x, row) in x.iter().zip(matrix.chunks_exact(bias.len())) {
        add_scaled(out, *x, row);
    }
}

/// `gradient += outer(x, delta)`, the transpose of [`affine`] with respect to its matrix.
#[inline(always)]
pub(crate) fn add_outer(gradient: &mut [f64], x: &[f64], delta: &[f64]) {
    for (x, row) in x.iter().zip(gradient.chunks_exact_mut(delta.len())) {
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
        *logit = (*logit - highest).exp();
        total += *logit;
    }
    for logit in logits.iter_mut() {
        *logit /= total;
    }
    logits[class] -= 1.0;
    (total.ln() - (own - highest), best)
}

/// One step of gradient descent: `w -= lr * (gradient / batch + l2 * w)`.
#[inline(always)]
pub(crate) fn descend(weights: &mut [f64], gradient: &[f64], lr_over_batch: f64, shrink: f64) {
    for (weight, gradient) in weights.iter_mut().zip(gradient) {
        *weight -= lr_over_batch * gradient + shrink * *weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_gives_what_the_plain_loop_gives() {
        for len in 0..=13_u32 {
            let x: Vec<f64> = (0..len).map(|i| f64::from(i) - 3.0).collect();
            let y: Vec<f64> = (0..len).map(|i| f64::from(i * i) + 1.0).collect();
            let plain: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
            assert_eq!(dot(&x, &y), plain, "dot of {len}");
            let mut sum = y.clone();
            add_scaled(&mut sum, 2.0, &x);
            let plain: Vec<f64> = x.iter().zip(&y).map(|(x, y)| y + 2.0 * x).collect();
            assert_eq!(sum, plain, "add_scaled of {len}");
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
