//! Examples four at a time, through the networks whose examples do not wait for one another.

use super::{Examples, Verdict, bigram, mlp, softmax};
use crate::lanes::{LANES, Lanes, cross_entropy, pack, slope};

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flat {
    Softmax,
    Mlp { hidden: usize },
    Bigram,
}

/// Room for four examples on their way through a network.
pub(super) struct Fours {
    flat: Flat,
    x: Vec<Lanes>,
    activations: Vec<Lanes>,
    hidden: Vec<Lanes>,
    delta: Vec<Lanes>,
    labels: [usize; LANES],
    tokens: [usize; LANES],
}

impl Fours {
    pub(super) fn new(flat: Flat, features: usize, classes: usize) -> Self {
        let hidden = match flat {
            Flat::Mlp { hidden } => hidden,
            Flat::Softmax | Flat::Bigram => 0,
        };
        let room = |len| vec![[0.0; LANES]; len];
        Self {
            flat,
            x: room(features),
            activations: room(hidden),
            hidden: room(hidden),
            delta: room(classes),
            labels: [0; LANES],
            tokens: [0; LANES],
        }
    }

    /// Adds the gradient of the loss of up to four examples, at least one.
    #[inline(always)]
    pub(super) fn learn(
        &mut self,
        parameters: &[f64],
        examples: &Examples,
        rows: &[usize],
        gradient: &mut [f64],
    ) {
        self.logits(parameters, examples, rows);
        slope(&mut self.delta, self.labels, rows.len());
        match self.flat {
            Flat::Softmax => softmax::learn(&self.x, &self.delta, gradient),
            Flat::Mlp { .. } => mlp::learn(
                parameters,
                (&self.x, &self.activations),
                (&mut self.hidden, &self.delta),
                gradient,
            ),
            Flat::Bigram => bigram::learn(self.tokens, &self.delta, gradient),
        }
    }

    /// What up to four examples say, at least one; lanes beyond them repeat the last.
    #[inline(always)]
    pub(super) fn judge(
        &mut self,
        parameters: &[f64],
        examples: &Examples,
        rows: &[usize],
    ) -> [Verdict; LANES] {
        self.logits(parameters, examples, rows);
        cross_entropy(&mut self.delta, self.labels)
    }

    /// Lanes without an example repeat the last one.
    #[inline(always)]
    fn logits(&mut self, parameters: &[f64], examples: &Examples, rows: &[usize]) {
        let last = rows.len() - 1;
        let own = [0, 1, 2, 3].map(|lane: usize| examples.row(rows[lane.min(last)]));
        self.labels = own.map(|(_, label)| label as usize);
        let rows = own.map(|(x, _)| x);
        match self.flat {
            Flat::Softmax => {
                pack(&mut self.x, rows);
                softmax::logits(parameters, &self.x, &mut self.delta);
            }
            Flat::Mlp { .. } => {
                pack(&mut self.x, rows);
                mlp::logits(parameters, &self.x, &mut self.activations, &mut self.delta);
            }
            Flat::Bigram => {
                self.tokens = rows.map(bigram::token);
                bigram::logits(parameters, self.tokens, &mut self.delta);
            }
        }
    }
}
