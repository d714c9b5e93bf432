//! The hot loops over four examples at once, each in a lane of its own.
//!
//! Lanes never mix, so every example has the bits that it would have alone, whatever the vectors of
//! a machine are; and a loop of the guest, which pays for the host's interruption check at every
//! turn, makes a quarter of the turns. Numbers that all examples share (a matrix, a gradient) are
//! read and written once for four. Whole loops are calls, so that the guest stays small.

use std::{
    array,
    ops::{Add, Mul},
};

use wide::{f64x2, f64x4};

use crate::{exact, network::Verdict};

pub(crate) const LANES: usize = 4;
/// One number of each of four examples.
pub(crate) type Lanes = [f64; LANES];

/// Rows and columns that are done between two checks, as registers allow.
const BLOCK: usize = 4;

/// Puts four rows side by side: `out[i][n] = rows[n][i]`.
#[inline(never)]
pub(crate) fn pack(out: &mut [Lanes], rows: [&[f64]; LANES]) {
    let (outs, rest) = out.as_chunks_mut::<BLOCK>();
    let blocks = rows.map(|row| row.as_chunks::<BLOCK>());
    let [a, b, c, d] = blocks.map(|(blocks, _)| blocks);
    for ((((out, a), b), c), d) in outs.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *out = transposed([*a, *b, *c, *d]);
    }
    let [a, b, c, d] = blocks.map(|(_, rest)| rest);
    for ((((out, a), b), c), d) in rest.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *out = [*a, *b, *c, *d];
    }
}

/// `out = bias + x * matrix`, with `matrix` of shape `[x.len(), out.len()]`, row by row.
///
/// Every number of `out` is added to in the order of the rows.
#[inline(never)]
pub(crate) fn affine(out: &mut [Lanes], x: &[Lanes], matrix: &[f64], bias: &[f64]) {
    let (outs, rest) = out.as_chunks_mut::<BLOCK>();
    for (block, out) in outs.iter_mut().enumerate() {
        *out = columns(x, matrix, bias, block * BLOCK);
    }
    let at = outs.len() * BLOCK;
    let (pairs, single) = rest.as_chunks_mut::<2>();
    if let [pair] = pairs {
        *pair = columns(x, matrix, bias, at);
    }
    if let [last] = single {
        [*last] = columns(x, matrix, bias, at + 2 * pairs.len());
    }
}

/// `C` columns of [`affine`], from `at`.
#[inline(always)]
fn columns<const C: usize>(x: &[Lanes], matrix: &[f64], bias: &[f64], at: usize) -> [Lanes; C] {
    let width = bias.len();
    let mut sums: [f64x4; C] = array::from_fn(|column| f64x4::splat(bias[at + column]));
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    let mut rows = matrix.chunks_exact(BLOCK * width);
    for (x, rows) in blocks.iter().zip(rows.by_ref()) {
        for row in 0..BLOCK {
            let weights = &rows[row * width + at..row * width + at + C];
            add_products(&mut sums, x[row], weights);
        }
    }
    for (x, row) in rest.iter().zip(rows.remainder().chunks_exact(width)) {
        add_products(&mut sums, *x, &row[at..at + C]);
    }
    sums.map(f64x4::to_array)
}

#[inline(always)]
fn add_products(sums: &mut [f64x4], x: Lanes, weights: &[f64]) {
    let x = f64x4::from(x);
    for (sum, weight) in sums.iter_mut().zip(weights) {
        *sum += x * f64x4::splat(*weight);
    }
}

/// `gradient += outer(x, delta)` of each example, in their order: the transpose of [`affine`] with
/// respect to its matrix.
#[inline(never)]
pub(crate) fn add_outer(gradient: &mut [f64], x: &[Lanes], delta: &[Lanes]) {
    let width = delta.len();
    let (blocks, rest) = delta.as_chunks::<BLOCK>();
    for (block, delta) in blocks.iter().enumerate() {
        add_outer_columns::<BLOCK, f64x4>(gradient, x, delta, (width, block * BLOCK));
    }
    let at = blocks.len() * BLOCK;
    let (pairs, single) = rest.as_chunks::<2>();
    if let [pair] = pairs {
        add_outer_columns::<2, f64x2>(gradient, x, pair, (width, at));
    }
    if let [delta] = single {
        for (x, row) in x.iter().zip(gradient.chunks_exact_mut(width)) {
            for lane in 0..LANES {
                row[width - 1] += x[lane] * delta[lane];
            }
        }
    }
}

/// `C` columns of [`add_outer`], from `at`, as vectors `V`.
#[inline(always)]
fn add_outer_columns<const C: usize, V>(
    gradient: &mut [f64],
    x: &[Lanes],
    delta: &[Lanes; C],
    (width, at): (usize, usize),
) where
    V: Copy + From<f64> + From<[f64; C]> + Into<[f64; C]> + Add<Output = V> + Mul<Output = V>,
{
    let delta: [V; LANES] = transposed(*delta).map(V::from);
    let add = |row: &mut [f64], x: &Lanes| {
        let Some(sums) = row[at..].first_chunk_mut::<C>() else { return };
        let mut sum = V::from(*sums);
        for lane in 0..LANES {
            sum = sum + V::from(x[lane]) * delta[lane];
        }
        *sums = sum.into();
    };
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    let mut rows = gradient.chunks_exact_mut(BLOCK * width);
    for (x, rows) in blocks.iter().zip(rows.by_ref()) {
        for (x, row) in x.iter().zip(rows.chunks_exact_mut(width)) {
            add(row, x);
        }
    }
    for (x, row) in rest.iter().zip(rows.into_remainder().chunks_exact_mut(width)) {
        add(row, x);
    }
}

/// `out[i] = row i of the matrix * delta`, the transpose of [`affine`] with respect to its input;
/// summed as [`crate::kernel::dot`] does.
#[inline(never)]
pub(crate) fn back(out: &mut [Lanes], matrix: &[f64], delta: &[Lanes]) {
    let (blocks, rest) = delta.as_chunks::<BLOCK>();
    for (out, row) in out.iter_mut().zip(matrix.chunks_exact(delta.len())) {
        let mut sums = [f64x4::ZERO; BLOCK];
        let (weights, last) = row.as_chunks::<BLOCK>();
        for (weights, delta) in weights.iter().zip(blocks) {
            for at in 0..BLOCK {
                sums[at] += f64x4::splat(weights[at]) * f64x4::from(delta[at]);
            }
        }
        let mut left = f64x4::splat(-0.0);
        for (weight, delta) in last.iter().zip(rest) {
            left += f64x4::splat(*weight) * f64x4::from(*delta);
        }
        let [a, b, c, d] = sums;
        *out = ((a + c) + (b + d) + left).to_array();
    }
}

/// `gradient += delta` of each example, in their order.
#[inline(always)]
pub(crate) fn add_all(gradient: &mut [f64], delta: &[Lanes]) {
    for (sum, delta) in gradient.iter_mut().zip(delta) {
        for value in delta {
            *sum += value;
        }
    }
}

/// `gradient += delta` of the example in this lane.
#[inline(always)]
pub(crate) fn add_lane(gradient: &mut [f64], delta: &[Lanes], lane: usize) {
    let (sums, rest) = gradient.as_chunks_mut::<BLOCK>();
    let (deltas, last) = delta.as_chunks::<BLOCK>();
    for (sums, delta) in sums.iter_mut().zip(deltas) {
        for (sum, delta) in sums.iter_mut().zip(delta) {
            *sum += delta[lane];
        }
    }
    for (sum, delta) in rest.iter_mut().zip(last) {
        *sum += delta[lane];
    }
}

/// Turns logits into `probability - target`, the gradient of the cross entropy, in place; in lanes
/// from `count` on into nothing.
#[inline(never)]
pub(crate) fn slope(logits: &mut [Lanes], classes: [usize; LANES], count: usize) {
    let highest = highest(logits);
    let total = exponentials(logits, highest);
    for logit in logits.iter_mut() {
        for lane in 0..LANES {
            logit[lane] /= total[lane];
        }
    }
    for (lane, class) in classes.into_iter().enumerate() {
        logits[class][lane] -= 1.0;
    }
    for logit in logits.iter_mut().filter(|_| count < LANES) {
        logit[count..].fill(0.0);
    }
}

/// The cross entropy, and whether the class is the first of the likeliest. Logits become weights.
#[inline(never)]
pub(crate) fn cross_entropy(logits: &mut [Lanes], classes: [usize; LANES]) -> [Verdict; LANES] {
    let highest = highest(logits);
    let mut verdicts = [Verdict { loss: 0.0, hit: false }; LANES];
    for (lane, class) in classes.into_iter().enumerate() {
        let own = logits[class][lane];
        let first = || !logits[..class].iter().any(|logit| logit[lane] == own);
        verdicts[lane].hit = own == highest[lane] && first();
        verdicts[lane].loss = own - highest[lane];
    }
    let total = exponentials(logits, highest);
    for (verdict, total) in verdicts.iter_mut().zip(total) {
        verdict.loss = exact::ln(total) - verdict.loss;
    }
    verdicts
}

#[inline(always)]
fn highest(logits: &[Lanes]) -> Lanes {
    let mut highest = logits[0];
    for logit in &logits[1..] {
        for lane in 0..LANES {
            highest[lane] = if logit[lane] > highest[lane] { logit[lane] } else { highest[lane] };
        }
    }
    highest
}

/// `e^(logit - highest)`, which does not overflow, in place; gives the sums.
#[inline(always)]
fn exponentials(logits: &mut [Lanes], highest: Lanes) -> Lanes {
    let mut total = [0.0; LANES];
    for logit in logits.iter_mut() {
        for lane in 0..LANES {
            logit[lane] = exact::exp(logit[lane] - highest[lane]);
            total[lane] += logit[lane];
        }
    }
    total
}

#[inline(always)]
fn transposed<const R: usize, const C: usize>(rows: [[f64; C]; R]) -> [[f64; R]; C] {
    let mut out = [[0.0; R]; C];
    for (row, values) in rows.iter().enumerate() {
        for (column, value) in values.iter().enumerate() {
            out[column][row] = *value;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel;

    fn number(at: usize) -> f64 {
        (at * 37 % 101) as f64 / 7.0 - 5.0
    }

    fn numbers(count: usize, from: usize) -> Vec<f64> {
        (0..count).map(|at| number(at + from)).collect()
    }

    fn packed(rows: &[Vec<f64>; LANES]) -> Vec<Lanes> {
        let mut out = vec![[0.0; LANES]; rows[0].len()];
        let [a, b, c, d] = rows;
        pack(&mut out, [a, b, c, d]);
        out
    }

    #[test]
    fn four_at_once_have_the_bits_that_each_has_alone() {
        for (ins, outs) in [(1, 1), (3, 5), (4, 4), (5, 10), (8, 3), (13, 18), (64, 10), (9, 7)] {
            let xs: [Vec<f64>; LANES] = [1, 2, 3, 4].map(|n| numbers(ins, n * 11));
            let ds: [Vec<f64>; LANES] = [1, 2, 3, 4].map(|n| numbers(outs, n * 17));
            let (matrix, bias) = (numbers(ins * outs, 7), numbers(outs, 5));
            let (x, delta) = (packed(&xs), packed(&ds));
            let (mut out, mut before) = (vec![[0.0; LANES]; outs], vec![[0.0; LANES]; ins]);
            affine(&mut out, &x, &matrix, &bias);
            back(&mut before, &matrix, &delta);
            let (mut gradient, mut alone) = (matrix.clone(), matrix.clone());
            add_outer(&mut gradient, &x, &delta);
            let (mut sums, mut sums_alone) = (bias.clone(), bias.clone());
            add_all(&mut sums, &delta);
            for (lane, (x, delta)) in xs.iter().zip(&ds).enumerate() {
                let mut plain = vec![0.0; outs];
                kernel::affine(&mut plain, x, &matrix, &bias);
                let lane_of = |all: &[Lanes]| all.iter().map(|it| it[lane]).collect::<Vec<_>>();
                assert_eq!(lane_of(&out), plain, "affine of {ins} and {outs}");
                let plain: Vec<f64> =
                    matrix.chunks_exact(outs).map(|row| kernel::dot(row, delta)).collect();
                assert_eq!(lane_of(&before), plain, "back of {ins} and {outs}");
                kernel::add_outer(&mut alone, x, delta);
                kernel::add_scaled(&mut sums_alone, 1.0, delta);
                let mut sum = bias.clone();
                add_lane(&mut sum, &packed(&ds), lane);
                let plain: Vec<f64> = bias.iter().zip(delta).map(|(a, b)| a + b).collect();
                assert_eq!(sum, plain, "lane {lane} of {outs}");
            }
            assert_eq!(gradient, alone, "outer product of {ins} and {outs}");
            assert_eq!(sums, sums_alone, "sums of {outs}");
        }
    }

    #[test]
    fn the_cross_entropy_and_its_slope_are_those_of_one_example() {
        for width in [2, 3, 10, 30] {
            let rows: [Vec<f64>; LANES] = [1, 2, 3, 4].map(|n| numbers(width, n * 13));
            let classes = [0, 1, width - 1, width / 2];
            let mut slopes = packed(&rows);
            slope(&mut slopes, classes, 3);
            let verdicts = cross_entropy(&mut packed(&rows), classes);
            for (lane, (mut row, class)) in rows.into_iter().zip(classes).enumerate() {
                let (loss, best) = kernel::softmax_cross_entropy(&mut row, class);
                let alone = Verdict { loss, hit: best == class };
                assert_eq!(verdicts[lane], alone, "{width} classes");
                let row = if lane < 3 { row } else { vec![0.0; width] };
                assert_eq!(slopes.iter().map(|it| it[lane]).collect::<Vec<_>>(), row);
            }
        }
    }

    #[test]
    fn of_equal_logits_the_first_is_the_best() {
        let verdicts = cross_entropy(&mut [[5.0; LANES]; 10], [0, 1, 3, 9]);
        assert_eq!(verdicts.map(|it| it.hit), [true, false, false, false]);
        assert!(verdicts.iter().all(|it| (it.loss - 10_f64.ln()).abs() < 1e-15));
    }

    #[test]
    fn huge_logits_give_a_finite_loss() {
        let verdicts = cross_entropy(&mut [[1e300; LANES], [-1e300; LANES]], [0; LANES]);
        assert_eq!(verdicts, [Verdict { loss: 0.0, hit: true }; LANES]);
    }
}
