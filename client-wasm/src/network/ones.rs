//! Examples one by one, through the networks that need it, or have little work for each.

use super::{Verdict, cnn::Cnn, gru::Gru, linear};

/// Which of them.
#[derive(Clone, Copy, Debug)]
pub(super) enum One {
    Linear,
    Cnn(Cnn),
    Gru(Gru),
}

/// Room for one example on its way through a network.
pub(super) struct Ones {
    one: One,
    scratch: Vec<f64>,
}

impl Ones {
    pub(super) fn new(one: One, scratch_len: usize) -> Self {
        Self { one, scratch: vec![0.0; scratch_len] }
    }

    /// Adds the gradient of one example's loss.
    #[inline(always)]
    pub(super) fn learn(
        &mut self,
        parameters: &[f64],
        (x, label): (&[f64], f64),
        sums: &mut [f64],
    ) {
        match self.one {
            One::Linear => linear::learn(parameters, x, label, sums),
            One::Cnn(cnn) => cnn.learn(parameters, (x, label), sums, &mut self.scratch),
            One::Gru(gru) => gru.learn(parameters, (x, label), sums, &mut self.scratch),
        }
    }

    #[inline(always)]
    pub(super) fn judge(&mut self, parameters: &[f64], (x, label): (&[f64], f64)) -> Verdict {
        match self.one {
            One::Linear => linear::judge(parameters, x, label),
            One::Cnn(cnn) => cnn.judge(parameters, (x, label), &mut self.scratch),
            One::Gru(gru) => gru.judge(parameters, (x, label), &mut self.scratch),
        }
    }
}
