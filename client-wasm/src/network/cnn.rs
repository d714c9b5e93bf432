//! A small convolutional network on square images: twice `max(0, pool(conv(x)))`, then a softmax.
//!
//! Convolutions are 3x3 with a border of zeros, pools take the largest of 2x2, images lie row by
//! row with their channels side by side, and kernels are `[3, 3, in, out]`.

use super::Verdict;
use crate::kernel::{add_outer, add_scaled, affine, dot, softmax_cross_entropy};

const KERNEL: usize = 3;

/// Shapes: `side` is a multiple of 4, the second layer has twice the channels of the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cnn {
    pub(super) side: usize,
    pub(super) channels: usize,
    pub(super) classes: usize,
}

/// One convolution with its pool.
#[derive(Clone, Copy, Debug)]
struct Layer {
    side: usize,
    ins: usize,
    outs: usize,
}

/// What a layer made of its input.
struct Made<'a> {
    convolved: &'a mut [f64],
    pooled: &'a mut [f64],
}

/// The side of a square image of this many pixels, if it can be pooled twice.
pub(super) fn side_of(features: usize) -> Option<usize> {
    let side = features.isqrt();
    (side > 0 && side * side == features && side.is_multiple_of(4)).then_some(side)
}

impl Cnn {
    const fn layers(self) -> [Layer; 2] {
        let Self { side, channels, .. } = self;
        [
            Layer { side, ins: 1, outs: channels },
            Layer { side: side / 2, ins: channels, outs: 2 * channels },
        ]
    }

    /// Numbers that go into the softmax.
    pub(super) const fn flat(side: usize, channels: usize) -> usize {
        (side / 4) * (side / 4) * 2 * channels
    }

    pub(super) const fn scratch_len(self) -> usize {
        let [first, second] = self.layers();
        2 * (first.made_len() + second.made_len()) + self.classes
    }

    /// Adds the gradient of one example.
    #[inline(always)]
    pub(super) fn learn(
        self,
        parameters: &[f64],
        (x, label): (&[f64], f64),
        gradient: &mut [f64],
        scratch: &mut [f64],
    ) {
        self.judge(parameters, (x, label), scratch);
        let [first, second] = self.layers();
        let (made, back) = scratch.split_at_mut(first.made_len() + second.made_len());
        let (made_1, made_2) = made.split_at_mut(first.made_len());
        let (made_1, made_2) = (first.made(made_1), second.made(made_2));
        let (back_1, rest) = back.split_at_mut(first.made_len());
        let (back_2, delta) = rest.split_at_mut(second.made_len());
        let (back_1, back_2) = (first.made(back_1), second.made(back_2));
        let (_, rest) = parameters.split_at(first.len());
        let (kernel_2, head) = rest.split_at(second.len());
        let (sums_1, rest) = gradient.split_at_mut(first.len());
        let (sums_2, sums_head) = rest.split_at_mut(second.len());

        let (w, b) = sums_head.split_at_mut(made_2.pooled.len() * delta.len());
        add_outer(w, made_2.pooled, delta);
        add_scaled(b, 1.0, delta);
        for (back, row) in back_2.pooled.iter_mut().zip(head.chunks_exact(delta.len())) {
            *back = dot(row, delta);
        }
        second.unpool(&made_2, back_2.pooled, back_2.convolved);
        second.add_gradient(made_1.pooled, back_2.convolved, sums_2);
        second.into_input(kernel_2, back_2.convolved, back_1.pooled);
        first.unpool(&made_1, back_1.pooled, back_1.convolved);
        first.add_gradient(x, back_1.convolved, sums_1);
    }

    /// Leaves what the layers made at the front of `scratch`, the gradient of the logits at its
    /// end.
    #[inline(always)]
    pub(super) fn judge(
        self,
        parameters: &[f64],
        (x, label): (&[f64], f64),
        scratch: &mut [f64],
    ) -> Verdict {
        let [first, second] = self.layers();
        let (kernel_1, rest) = parameters.split_at(first.len());
        let (kernel_2, head) = rest.split_at(second.len());
        let (made_1, rest) = scratch.split_at_mut(first.made_len());
        let (made_2, rest) = rest.split_at_mut(second.made_len());
        let (made_1, made_2) = (first.made(made_1), second.made(made_2));
        first.convolve(x, kernel_1, made_1.convolved);
        first.pool(made_1.convolved, made_1.pooled);
        second.convolve(made_1.pooled, kernel_2, made_2.convolved);
        second.pool(made_2.convolved, made_2.pooled);
        let delta = rest.len() - self.classes;
        let logits = &mut rest[delta..];
        let (w, b) = head.split_at(made_2.pooled.len() * logits.len());
        affine(logits, made_2.pooled, w, b);
        let class = label as usize;
        let (loss, best) = softmax_cross_entropy(logits, class);
        Verdict { loss, hit: best == class }
    }
}

impl Layer {
    /// Kernel and biases.
    const fn len(self) -> usize {
        (KERNEL * KERNEL * self.ins + 1) * self.outs
    }

    const fn made_len(self) -> usize {
        self.side * self.side * self.outs / 4 * 5
    }

    fn made(self, scratch: &mut [f64]) -> Made<'_> {
        let (convolved, pooled) = scratch.split_at_mut(self.side * self.side * self.outs);
        Made { convolved, pooled }
    }

    /// The offset of each pixel under the kernel at `(row, column)`: place in the kernel, pixel.
    #[inline(always)]
    fn under(self, row: usize, column: usize) -> impl Iterator<Item = (usize, usize)> {
        let rows = row.saturating_sub(1)..(row + 2).min(self.side);
        rows.flat_map(move |y| {
            let columns = column.saturating_sub(1)..(column + 2).min(self.side);
            columns.map(move |x| ((y + 1 - row) * KERNEL + x + 1 - column, y * self.side + x))
        })
    }

    #[inline(always)]
    fn convolve(self, x: &[f64], parameters: &[f64], out: &mut [f64]) {
        let (kernel, bias) = parameters.split_at(self.len() - self.outs);
        for (at, out) in out.chunks_exact_mut(self.outs).enumerate() {
            out.copy_from_slice(bias);
            for (place, pixel) in self.under(at / self.side, at % self.side) {
                let x = &x[pixel * self.ins..(pixel + 1) * self.ins];
                let rows =
                    &kernel[place * self.ins * self.outs..(place + 1) * self.ins * self.outs];
                for (x, row) in x.iter().zip(rows.chunks_exact(self.outs)) {
                    add_scaled(out, *x, row);
                }
            }
        }
    }

    /// Adds the gradient of kernel and biases.
    #[inline(always)]
    fn add_gradient(self, x: &[f64], back: &[f64], sums: &mut [f64]) {
        let (kernel, bias) = sums.split_at_mut(self.len() - self.outs);
        for (at, back) in back.chunks_exact(self.outs).enumerate() {
            add_scaled(bias, 1.0, back);
            for (place, pixel) in self.under(at / self.side, at % self.side) {
                let x = &x[pixel * self.ins..(pixel + 1) * self.ins];
                let from = place * self.ins * self.outs;
                add_outer(&mut kernel[from..from + self.ins * self.outs], x, back);
            }
        }
    }

    /// The gradient of the input.
    #[inline(always)]
    fn into_input(self, parameters: &[f64], back: &[f64], input: &mut [f64]) {
        input.fill(0.0);
        for (at, back) in back.chunks_exact(self.outs).enumerate() {
            for (place, pixel) in self.under(at / self.side, at % self.side) {
                let input = &mut input[pixel * self.ins..(pixel + 1) * self.ins];
                let rows = &parameters[place * self.ins * self.outs..];
                for (input, row) in input.iter_mut().zip(rows.chunks_exact(self.outs)) {
                    *input += dot(row, back);
                }
            }
        }
    }

    /// `max(0, largest of 2x2)`
    #[inline(always)]
    fn pool(self, convolved: &[f64], pooled: &mut [f64]) {
        for (at, pooled) in pooled.iter_mut().enumerate() {
            let mut largest = convolved[self.block(at)[0]];
            for index in self.block(at) {
                // Not `max`, which would hide a NaN.
                if convolved[index] > largest || convolved[index].is_nan() {
                    largest = convolved[index];
                }
            }
            *pooled = if largest < 0.0 { 0.0 } else { largest };
        }
    }

    /// Hands the gradient of each pooled number to the first that it was taken from.
    #[inline(always)]
    fn unpool(self, made: &Made<'_>, pooled: &[f64], convolved: &mut [f64]) {
        convolved.fill(0.0);
        for (at, back) in pooled.iter().enumerate() {
            let value = made.pooled[at];
            let first = self.block(at).into_iter().find(|index| made.convolved[*index] == value);
            if let Some(index) = first.filter(|_| value > 0.0) {
                convolved[index] = *back;
            }
        }
    }

    /// The four that a pooled number is taken from.
    #[inline(always)]
    fn block(self, at: usize) -> [usize; 4] {
        let (channel, pixel) = (at % self.outs, at / self.outs);
        let (row, column) = (pixel / (self.side / 2), pixel % (self.side / 2));
        let corner = (2 * row * self.side + 2 * column) * self.outs + channel;
        let below = corner + self.side * self.outs;
        [corner, corner + self.outs, below, below + self.outs]
    }
}
