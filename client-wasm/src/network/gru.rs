//! A gated recurrent unit that reads tokens one by one and says each time what comes next.
//!
//! Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, equations 5 to 8,
//! with the reset gate after the recurrent product, as cuDNN has it:
//!
//! ```text
//! z = sigmoid(wz[token] + h uz + bz)       how much of the old state is kept
//! r = sigmoid(wr[token] + h ur + br)       how much of it the candidate sees
//! q = h uq + cq
//! n = tanh(wn[token] + bn + r * q)         the candidate
//! h = (1 - z) * n + z * h
//! p = softmax(h wo + bo)
//! ```
//! The loss of a row is the mean of `-ln p[next]` over its tokens; a hit is one at the last.

use super::Verdict;
use crate::{
    exact::{sigmoid, tanh},
    kernel::{add_outer, add_scaled, affine, dot, softmax_cross_entropy},
};

/// Numbers that are remembered of each token: h before it, z, r, q, n, h after it.
const KEPT: usize = 6;

/// The shapes of the unit, and where its tensors begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gru {
    pub(super) hidden: usize,
    pub(super) tokens: usize,
}

/// Tensors in the order in which they stand.
struct Tensors<T> {
    wz: T,
    uz: T,
    bz: T,
    wr: T,
    ur: T,
    br: T,
    wn: T,
    bn: T,
    uq: T,
    cq: T,
    wo: T,
    bo: T,
}

impl Gru {
    pub(super) const fn scratch_len(self, steps: usize) -> usize {
        steps * (KEPT * self.hidden + self.tokens) + 6 * self.hidden
    }

    const fn lens(self) -> [usize; 12] {
        let Self { hidden: h, tokens: t } = self;
        [t * h, h * h, h, t * h, h * h, h, t * h, h, h * h, h, h * t, t]
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
        let weights = self.split(parameters);
        let mut sums = self.split_mut(gradient);
        let (kept, rest) = scratch.split_at_mut(x.len() * KEPT * self.hidden);
        let (deltas, back) = rest.split_at_mut(x.len() * self.tokens);
        let mut back = Back::new(back, self.hidden);
        back.h.fill(0.0);
        for (step, token) in x.iter().enumerate().rev() {
            let kept = Step::of(&kept[step * KEPT * self.hidden..], self.hidden);
            let delta = &mut deltas[step * self.tokens..(step + 1) * self.tokens];
            let share = 1.0 / x.len() as f64;
            delta.iter_mut().for_each(|value| *value *= share);
            add_outer(sums.wo, kept.after, delta);
            add_scaled(sums.bo, 1.0, delta);
            for (back, row) in back.h.iter_mut().zip(weights.wo.chunks_exact(self.tokens)) {
                *back += dot(row, delta);
            }
            self.step_back(&weights, &mut sums, (kept, *token as usize), &mut back);
        }
    }

    /// From the gradient of the state after a token to that of the state before it.
    #[inline(always)]
    fn step_back(
        self,
        weights: &Tensors<&[f64]>,
        sums: &mut Tensors<&mut [f64]>,
        (kept, token): (Step<'_>, usize),
        back: &mut Back<'_>,
    ) {
        let row = token * self.hidden..(token + 1) * self.hidden;
        for i in 0..self.hidden {
            let (z, r, q, n) = (kept.z[i], kept.r[i], kept.q[i], kept.n[i]);
            let dn = back.h[i] * (1.0 - z) * (1.0 - n * n);
            back.n[i] = dn;
            back.q[i] = dn * r;
            back.r[i] = dn * q * r * (1.0 - r);
            back.z[i] = back.h[i] * (kept.before[i] - n) * z * (1.0 - z);
            back.before[i] = back.h[i] * z;
        }
        add_scaled(&mut sums.wz[row.clone()], 1.0, back.z);
        add_scaled(&mut sums.wr[row.clone()], 1.0, back.r);
        add_scaled(&mut sums.wn[row], 1.0, back.n);
        add_scaled(sums.bz, 1.0, back.z);
        add_scaled(sums.br, 1.0, back.r);
        add_scaled(sums.bn, 1.0, back.n);
        add_scaled(sums.cq, 1.0, back.q);
        add_outer(sums.uz, kept.before, back.z);
        add_outer(sums.ur, kept.before, back.r);
        add_outer(sums.uq, kept.before, back.q);
        for i in 0..self.hidden {
            let row = i * self.hidden..(i + 1) * self.hidden;
            back.before[i] += dot(&weights.uz[row.clone()], back.z)
                + dot(&weights.ur[row.clone()], back.r)
                + dot(&weights.uq[row], back.q);
        }
        back.h.copy_from_slice(back.before);
    }

    /// Leaves what each token left behind at the front of `scratch`, then the gradients of the
    /// logits, token after token.
    #[inline(always)]
    pub(super) fn judge(
        self,
        parameters: &[f64],
        (x, label): (&[f64], f64),
        scratch: &mut [f64],
    ) -> Verdict {
        let weights = self.split(parameters);
        let (kept, rest) = scratch.split_at_mut(x.len() * KEPT * self.hidden);
        let (deltas, _) = rest.split_at_mut(x.len() * self.tokens);
        let mut verdict = Verdict { loss: 0.0, hit: false };
        for (step, token) in x.iter().enumerate() {
            let (earlier, now) = kept.split_at_mut(step * KEPT * self.hidden);
            let now = &mut now[..KEPT * self.hidden];
            match earlier.len().checked_sub(self.hidden) {
                Some(last) => now[..self.hidden].copy_from_slice(&earlier[last..]),
                None => now[..self.hidden].fill(0.0),
            }
            self.advance(&weights, *token as usize, now);
            let delta = &mut deltas[step * self.tokens..(step + 1) * self.tokens];
            affine(delta, &now[(KEPT - 1) * self.hidden..], weights.wo, weights.bo);
            let next = x.get(step + 1).map_or(label, |next| *next) as usize;
            let (loss, best) = softmax_cross_entropy(delta, next);
            verdict.loss += loss;
            verdict.hit = best == next;
        }
        verdict.loss /= x.len() as f64;
        verdict
    }

    /// One token: fills in all of `now` but its first part, which is the state before.
    #[inline(always)]
    fn advance(self, weights: &Tensors<&[f64]>, token: usize, now: &mut [f64]) {
        let row = token * self.hidden..(token + 1) * self.hidden;
        let (before, rest) = now.split_at_mut(self.hidden);
        let (z, rest) = rest.split_at_mut(self.hidden);
        let (r, rest) = rest.split_at_mut(self.hidden);
        let (q, rest) = rest.split_at_mut(self.hidden);
        let (n, after) = rest.split_at_mut(self.hidden);
        affine(z, before, weights.uz, weights.bz);
        add_scaled(z, 1.0, &weights.wz[row.clone()]);
        affine(r, before, weights.ur, weights.br);
        add_scaled(r, 1.0, &weights.wr[row.clone()]);
        affine(q, before, weights.uq, weights.cq);
        for i in 0..self.hidden {
            z[i] = sigmoid(z[i]);
            r[i] = sigmoid(r[i]);
            n[i] = tanh(weights.wn[row.start + i] + weights.bn[i] + r[i] * q[i]);
            after[i] = (1.0 - z[i]) * n[i] + z[i] * before[i];
        }
    }

    fn split(self, all: &[f64]) -> Tensors<&[f64]> {
        let mut rest = all;
        self.take(|len| rest.split_off(..len).unwrap_or_default())
    }

    fn split_mut(self, all: &mut [f64]) -> Tensors<&mut [f64]> {
        let mut rest = all;
        self.take(|len| rest.split_off_mut(..len).unwrap_or_default())
    }

    fn take<T>(self, mut next: impl FnMut(usize) -> T) -> Tensors<T> {
        let [wz, uz, bz, wr, ur, br, wn, bn, uq, cq, wo, bo] = self.lens().map(&mut next);
        Tensors { wz, uz, bz, wr, ur, br, wn, bn, uq, cq, wo, bo }
    }
}

/// What is remembered of one token.
#[derive(Clone, Copy)]
struct Step<'a> {
    before: &'a [f64],
    z: &'a [f64],
    r: &'a [f64],
    q: &'a [f64],
    n: &'a [f64],
    after: &'a [f64],
}

impl<'a> Step<'a> {
    fn of(kept: &'a [f64], hidden: usize) -> Self {
        let part = |index: usize| &kept[index * hidden..(index + 1) * hidden];
        Self { before: part(0), z: part(1), r: part(2), q: part(3), n: part(4), after: part(5) }
    }
}

/// Gradients on the way back through time.
struct Back<'a> {
    h: &'a mut [f64],
    z: &'a mut [f64],
    r: &'a mut [f64],
    q: &'a mut [f64],
    n: &'a mut [f64],
    before: &'a mut [f64],
}

impl<'a> Back<'a> {
    fn new(scratch: &'a mut [f64], hidden: usize) -> Self {
        let mut rest = scratch;
        let mut next = || rest.split_off_mut(..hidden).unwrap_or_default();
        Self { h: next(), z: next(), r: next(), q: next(), n: next(), before: next() }
    }
}
