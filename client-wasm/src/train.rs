//! Minibatch stochastic gradient descent, and what it did to the loss.

use std::collections::BTreeMap;

use crate::{Dataset, Examples, Hyperparams, Model, Score, Tensor, TrainError, random::Random};

/// What came of a training step.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Rows trained on; the held-out ones are not among them.
    pub num_samples: usize,
    pub holdout_samples: usize,
    /// Steps of descent taken.
    pub steps: u64,
    /// On the rows trained on, before the first step and after the last.
    pub before: Score,
    pub after: Score,
    /// On the held-out rows, after the last step; `None` when none are held out.
    pub holdout: Option<Score>,
}

/// Trains a model on a data set, held-out rows aside.
///
/// The split depends on the seed alone, so a row that is held out in one round is held out in all
/// rounds on the same data. `stream` varies the order of the rows from round to round.
pub fn train(
    model: &mut Model,
    data: &Dataset,
    hyperparams: &Hyperparams,
    stream: u64,
) -> Result<Report, TrainError> {
    train_along(model, data, hyperparams, stream, &[])
}

/// As [`train`], with this added to the mean gradient of every step: tensors with the names and
/// shapes of the model's (SCAFFOLD's `c - c_i`).
pub fn train_corrected(
    model: &mut Model,
    data: &Dataset,
    hyperparams: &Hyperparams,
    stream: u64,
    correction: &BTreeMap<String, Tensor>,
) -> Result<Report, TrainError> {
    let correction = model.in_order(correction)?;
    train_along(model, data, hyperparams, stream, &correction)
}

fn train_along(
    model: &mut Model,
    data: &Dataset,
    hyperparams: &Hyperparams,
    stream: u64,
    correction: &[f64],
) -> Result<Report, TrainError> {
    if data.is_empty() {
        return Err(TrainError::NoData { dir: "the data set".to_owned() });
    }
    let (held_out, trained) = split(data.len(), hyperparams);
    let network = model.network;
    let prepare = |rows: &[usize]| Examples::prepare(&network, data, rows, hyperparams.scale);
    let (held_out, trained) = (prepare(&held_out)?, prepare(&trained)?);

    let before = network.score(&model.parameters, &trained);
    let steps = descend(model, &trained, hyperparams, (stream, correction));
    let after = network.score(&model.parameters, &trained);
    let holdout = (!held_out.is_empty()).then(|| network.score(&model.parameters, &held_out));

    check_finite(model, [Some(before), Some(after), holdout], hyperparams.lr)?;
    Ok(Report {
        num_samples: trained.len(),
        holdout_samples: held_out.len(),
        steps,
        before,
        after,
        holdout,
    })
}

/// Scores a model on the rows of a data set that [`train`] leaves out, given the same settings;
/// with how many there are.
pub fn evaluate_held_out(
    model: &Model,
    data: &Dataset,
    hyperparams: &Hyperparams,
) -> Result<(Score, usize), TrainError> {
    if data.is_empty() {
        return Err(TrainError::NoData { dir: "the data set".to_owned() });
    }
    let (held_out, _) = split(data.len(), hyperparams);
    if held_out.is_empty() {
        return Err(TrainError::NothingHeldOut { rows: data.len(), holdout: hyperparams.holdout });
    }
    let examples = Examples::prepare(&model.network, data, &held_out, hyperparams.scale)?;
    Ok((model.network.score(&model.parameters, &examples), held_out.len()))
}

/// Scores a model on all rows of a data set.
pub fn evaluate(model: &Model, data: &Dataset, scale: f64) -> Result<Score, TrainError> {
    if data.is_empty() {
        return Err(TrainError::NoData { dir: "the data set".to_owned() });
    }
    let rows: Vec<usize> = (0..data.len()).collect();
    let examples = Examples::prepare(&model.network, data, &rows, scale)?;
    Ok(model.network.score(&model.parameters, &examples))
}

impl Report {
    /// The scalars that go with an update, to six significant digits: every byte of them travels.
    pub fn metrics(&self) -> BTreeMap<&'static str, f64> {
        let mut metrics = BTreeMap::from([
            ("loss_before", self.before.loss),
            ("loss", self.after.loss),
            ("steps", self.steps as f64),
        ]);
        metrics.extend(self.after.accuracy.map(|part| ("train_accuracy", part)));
        if let Some(holdout) = self.holdout {
            metrics.insert("holdout_samples", self.holdout_samples as f64);
            metrics.insert("holdout_loss", holdout.loss);
            metrics.extend(holdout.accuracy.map(|part| ("accuracy", part)));
        }
        metrics.values_mut().for_each(|value| *value = six_digits(*value));
        metrics
    }
}

/// Digits that a reader has no use for are not said; whole numbers of steps and rows keep theirs.
fn six_digits(value: f64) -> f64 {
    if value.fract() == 0.0 {
        return value;
    }
    format!("{value:.5e}").parse().unwrap_or(value)
}

/// Held-out rows first, then those to train on, of which there is always one.
fn split(rows: usize, hyperparams: &Hyperparams) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..rows).collect();
    Random::new(hyperparams.seed).shuffle(&mut order);
    let held_out = ((rows as f64 * hyperparams.holdout) as usize).min(rows - 1);
    let trained = order.split_off(held_out);
    (order, trained)
}

fn descend(
    model: &mut Model,
    examples: &Examples,
    set: &Hyperparams,
    (stream, correction): (u64, &[f64]),
) -> u64 {
    let mut random = Random::stream(set.seed, stream);
    let mut order: Vec<usize> = (0..examples.len()).collect();
    let mut gradient = vec![0.0; model.parameters.len()];
    let base = model.parameters.clone();
    let mut steps = 0;
    for _ in 0..set.epochs {
        random.shuffle(&mut order);
        for batch in order.chunks(set.batch_size) {
            gradient.fill(0.0);
            model.network.add_gradient(&model.parameters, examples, batch, &mut gradient);
            pull_back(&model.parameters, &base, set.mu * batch.len() as f64, &mut gradient);
            let batch_len = batch.len() as f64;
            gradient.iter_mut().zip(correction).for_each(|(slope, add)| *slope += add * batch_len);
            let rates = (set.lr, set.l2);
            model.network.descend(&mut model.parameters, &gradient, batch.len(), rates);
            steps += 1;
        }
    }
    steps
}

/// The gradient of `pull / 2 * |w - base|^2`: what keeps a step near the model that it started from
/// (Li et al., "Federated optimization in heterogeneous networks", 2020, equation 2).
fn pull_back(parameters: &[f64], base: &[f64], pull: f64, gradient: &mut [f64]) {
    if pull == 0.0 {
        return;
    }
    for ((slope, w), from) in gradient.iter_mut().zip(parameters).zip(base) {
        *slope += pull * (w - from);
    }
}

/// JSON has no word for infinity, and an average none for "not a number".
fn check_finite(model: &Model, scores: [Option<Score>; 3], lr: f64) -> Result<(), TrainError> {
    if !model.parameters.iter().all(|value| value.is_finite()) {
        return Err(TrainError::Diverged { what: "a weight", lr });
    }
    if !scores.iter().flatten().all(|score| score.loss.is_finite()) {
        return Err(TrainError::Diverged { what: "the loss", lr });
    }
    Ok(())
}
