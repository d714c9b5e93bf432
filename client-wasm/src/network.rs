//! The models that can be trained, as functions of one flat vector of parameters.
//!
//! A network holds shapes only. Parameters and gradients are flat, so that a step of descent and a
//! gradient check need to know nothing of layers.

mod bigram;
mod cnn;
mod fours;
mod gru;
mod kind;
mod linear;
mod mlp;
mod ones;
mod softmax;

use cnn::Cnn;
use fours::{Flat, Fours};
use gru::Gru;
pub use kind::Kind;
use ones::{One, Ones};

use crate::{Dataset, TrainError, kernel, lanes::LANES, random::Random};

/// A model's shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub(crate) kind: Kind,
    pub(crate) features: usize,
    /// 1 for a linear model.
    pub(crate) classes: usize,
}

/// Rows made ready for a network: features scaled, labels checked.
#[derive(Clone, Debug)]
pub struct Examples {
    features: usize,
    values: Vec<f64>,
    labels: Vec<f64>,
}

/// How well a model does on some rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Mean cross entropy (natural logarithm); for a linear model half the mean squared error.
    pub loss: f64,
    /// The part of the rows whose class is right; a linear model has no classes.
    pub accuracy: Option<f64>,
}

/// A tensor's place in the flat vector of parameters.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) name: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) role: Role,
}

/// Biases start at zero and are never decayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Weight,
    Bias,
}

/// What one example says: its loss, and whether the model named its class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) loss: f64,
    pub(crate) hit: bool,
}

/// How examples go through a network.
enum Pass {
    Fours(Fours),
    Ones(Ones),
}

/// What many examples say.
#[derive(Default)]
struct Sum {
    loss: f64,
    hits: usize,
}

impl Sum {
    #[inline(always)]
    fn add(&mut self, verdict: &Verdict) {
        self.loss += verdict.loss;
        self.hits += usize::from(verdict.hit);
    }
}

impl Network {
    /// `classes` is 1 for a linear model, at least 2 for the others.
    pub fn new(kind: Kind, features: usize, classes: usize) -> Result<Self, TrainError> {
        let classes_fit = match kind {
            Kind::Linear => classes == 1,
            Kind::Softmax
            | Kind::Mlp { .. }
            | Kind::Cnn { .. }
            | Kind::Bigram
            | Kind::Gru { .. } => classes >= 2,
        };
        let features_fit = match kind {
            Kind::Cnn { .. } => cnn::side_of(features).is_some(),
            Kind::Linear | Kind::Softmax | Kind::Mlp { .. } | Kind::Bigram | Kind::Gru { .. } => {
                features > 0
            }
        };
        if !features_fit || !classes_fit {
            return Err(TrainError::Size { kind, features, classes });
        }
        Ok(Self { kind, features, classes })
    }

    /// How many numbers the network has.
    pub fn len(&self) -> usize {
        self.slots().iter().map(Slot::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn slots(&self) -> Vec<Slot> {
        let (features, classes) = (self.features, self.classes);
        let slot = |name, shape, role| Slot { name, shape, role };
        match self.kind {
            Kind::Linear => {
                vec![slot("w", vec![features], Role::Weight), slot("b", vec![], Role::Bias)]
            }
            Kind::Softmax => vec![
                slot("w", vec![features, classes], Role::Weight),
                slot("b", vec![classes], Role::Bias),
            ],
            Kind::Mlp { hidden } => vec![
                slot("w1", vec![features, hidden], Role::Weight),
                slot("b1", vec![hidden], Role::Bias),
                slot("w2", vec![hidden, classes], Role::Weight),
                slot("b2", vec![classes], Role::Bias),
            ],
            Kind::Cnn { channels } => {
                let flat = Cnn::flat(self.side(), channels);
                vec![
                    slot("conv1.w", vec![3, 3, 1, channels], Role::Weight),
                    slot("conv1.b", vec![channels], Role::Bias),
                    slot("conv2.w", vec![3, 3, channels, 2 * channels], Role::Weight),
                    slot("conv2.b", vec![2 * channels], Role::Bias),
                    slot("dense.w", vec![flat, classes], Role::Weight),
                    slot("dense.b", vec![classes], Role::Bias),
                ]
            }
            Kind::Bigram => vec![
                slot("w", vec![classes, classes], Role::Weight),
                slot("b", vec![classes], Role::Bias),
            ],
            Kind::Gru { hidden } => vec![
                slot("gru.wz", vec![classes, hidden], Role::Weight),
                slot("gru.uz", vec![hidden, hidden], Role::Weight),
                slot("gru.bz", vec![hidden], Role::Bias),
                slot("gru.wr", vec![classes, hidden], Role::Weight),
                slot("gru.ur", vec![hidden, hidden], Role::Weight),
                slot("gru.br", vec![hidden], Role::Bias),
                slot("gru.wn", vec![classes, hidden], Role::Weight),
                slot("gru.bn", vec![hidden], Role::Bias),
                slot("gru.uq", vec![hidden, hidden], Role::Weight),
                slot("gru.cq", vec![hidden], Role::Bias),
                slot("out.w", vec![hidden, classes], Role::Weight),
                slot("out.b", vec![classes], Role::Bias),
            ],
        }
    }

    /// Parameters to start from: zeros where the loss is convex; before rectified units uniform in
    /// `+-sqrt(6 / inputs)`, which keeps their variance (He et al., "Delving deep into rectifiers",
    /// 2015, section 2.2); in the recurrent unit uniform in `+-sqrt(1 / hidden)`; zero biases.
    pub(crate) fn initial(&self, seed: u64) -> Vec<f64> {
        let mut random = Random::new(seed);
        let mut parameters = vec![];
        for slot in self.slots() {
            let inputs: usize = slot.shape.iter().rev().skip(1).product();
            let bound = match (self.kind, slot.role) {
                (Kind::Mlp { .. } | Kind::Cnn { .. }, Role::Weight) => {
                    Some((6.0 / inputs as f64).sqrt())
                }
                (Kind::Gru { hidden }, Role::Weight) => Some((1.0 / hidden as f64).sqrt()),
                (Kind::Linear | Kind::Softmax | Kind::Bigram, Role::Weight) | (_, Role::Bias) => {
                    None
                }
            };
            match bound {
                Some(bound) => {
                    parameters.extend((0..slot.len()).map(|_| random.symmetric(bound)));
                }
                None => parameters.resize(parameters.len() + slot.len(), 0.0),
            }
        }
        parameters
    }

    /// Adds the gradient of the summed loss of some examples.
    #[cfg_attr(target_arch = "wasm32", target_feature(enable = "simd128"))]
    pub(crate) fn add_gradient(
        &self,
        parameters: &[f64],
        examples: &Examples,
        rows: &[usize],
        gradient: &mut [f64],
    ) {
        match self.pass() {
            Pass::Fours(mut fours) => {
                for rows in rows.chunks(LANES) {
                    fours.learn(parameters, examples, rows, gradient);
                }
            }
            Pass::Ones(mut ones) => {
                for row in rows {
                    ones.learn(parameters, examples.row(*row), gradient);
                }
            }
        }
    }

    /// Scores examples; at least one.
    #[cfg_attr(target_arch = "wasm32", target_feature(enable = "simd128"))]
    pub(crate) fn score(&self, parameters: &[f64], examples: &Examples) -> Score {
        assert!(!examples.is_empty(), "a score needs at least one example");
        let mut sum = Sum::default();
        match self.pass() {
            Pass::Fours(mut fours) => {
                let rows: Vec<usize> = (0..examples.len()).collect();
                for rows in rows.chunks(LANES) {
                    let verdicts = fours.judge(parameters, examples, rows);
                    verdicts.iter().take(rows.len()).for_each(|verdict| sum.add(verdict));
                }
            }
            Pass::Ones(mut ones) => {
                for row in 0..examples.len() {
                    sum.add(&ones.judge(parameters, examples.row(row)));
                }
            }
        }
        let rows = examples.len() as f64;
        let accuracy = self.has_classes().then(|| sum.hits as f64 / rows);
        Score { loss: sum.loss / rows, accuracy }
    }

    /// One step of descent from the summed gradient of `batch` examples.
    pub(crate) fn descend(
        &self,
        parameters: &mut [f64],
        gradient: &[f64],
        batch: usize,
        (lr, l2): (f64, f64),
    ) {
        let mut start = 0;
        for slot in self.slots() {
            let range = start..start + slot.len();
            let shrink = match slot.role {
                Role::Weight => lr * l2,
                Role::Bias => 0.0,
            };
            let gradient = &gradient[range.clone()];
            start = range.end;
            kernel::descend(&mut parameters[range], gradient, lr / batch as f64, shrink);
        }
    }

    fn pass(&self) -> Pass {
        let fours = |flat| Pass::Fours(Fours::new(flat, self.features, self.classes));
        let ones = |one, scratch| Pass::Ones(Ones::new(one, scratch));
        match self.kind {
            Kind::Softmax => fours(Flat::Softmax),
            Kind::Mlp { hidden } => fours(Flat::Mlp { hidden }),
            Kind::Bigram => fours(Flat::Bigram),
            Kind::Linear => ones(One::Linear, 0),
            Kind::Cnn { channels } => {
                let cnn = Cnn { side: self.side(), channels, classes: self.classes };
                ones(One::Cnn(cnn), cnn.scratch_len())
            }
            Kind::Gru { hidden } => {
                let gru = Gru { hidden, tokens: self.classes };
                ones(One::Gru(gru), gru.scratch_len(self.features))
            }
        }
    }

    const fn has_classes(&self) -> bool {
        match self.kind {
            Kind::Linear => false,
            Kind::Softmax
            | Kind::Mlp { .. }
            | Kind::Cnn { .. }
            | Kind::Bigram
            | Kind::Gru { .. } => true,
        }
    }

    /// Pixels in a row of a square image.
    const fn side(&self) -> usize {
        self.features.isqrt()
    }
}

impl Slot {
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Examples {
    /// Takes the named rows of a data set; a label that is no class of the network is refused with
    /// its file and line.
    pub fn prepare(
        network: &Network,
        data: &Dataset,
        rows: &[usize],
        scale: f64,
    ) -> Result<Self, TrainError> {
        let features = data.features();
        let mut values = Vec::with_capacity(rows.len().saturating_mul(features));
        let mut labels = Vec::with_capacity(rows.len());
        for row in rows {
            let (x, label) = data.row(*row);
            let last = network.classes - 1;
            let is_class = |it: f64| (0.0..=last as f64).contains(&it) && it.fract() == 0.0;
            if network.has_classes() && !is_class(label) {
                let why = format!("label {label} is not a class; the model has 0 to {last}");
                return Err(data.complaint(*row, why));
            }
            let strange = x.iter().map(|value| value / scale).find(|token| !is_class(*token));
            if let Some(token) = strange.filter(|_| network.kind.reads_tokens()) {
                let why = format!("{token} is not a token; the model has 0 to {last}");
                return Err(data.complaint(*row, why));
            }
            values.extend(x.iter().map(|value| value / scale));
            labels.push(label);
        }
        Ok(Self { features, values, labels })
    }

    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    fn row(&self, row: usize) -> (&[f64], f64) {
        (&self.values[row * self.features..(row + 1) * self.features], self.labels[row])
    }
}

#[cfg(test)]
mod tests;
