//! The step as a proplet sees it: an assignment in the environment, an update on stdout or in a file.

use std::collections::BTreeMap;

use guest::{Answer, Update};

use crate::{
    Dataset, Hyperparams, Model, TrainError, evaluate, evaluate_held_out, random::stream_of, train,
    train_corrected,
};

/// What the environment asks for.
#[derive(Clone, Debug)]
pub struct Assignment {
    pub asked: guest::Assignment,
    pub hyperparams: Hyperparams,
    pub purpose: Purpose,
}

/// What the step is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Train,
    /// Say how the model does on rows that it was not trained on.
    Evaluate,
}

impl Assignment {
    /// Reads what every guest does, with hyperparams that are this one's, and `PURPOSE`, which may
    /// be missing; `DATA_DIR` must be there.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, TrainError> {
        let purpose = Purpose::read(var("PURPOSE"))?;
        let asked = guest::Assignment::from_vars(var)?;
        asked.data_dir()?;
        let hyperparams = Hyperparams::from_keys(asked.hyperparams.keys())?;
        Ok(Self { asked, hyperparams, purpose })
    }
}

impl Purpose {
    fn read(value: Option<String>) -> Result<Self, TrainError> {
        match value.as_deref() {
            None | Some("train") => Ok(Self::Train),
            Some("evaluate") => Ok(Self::Evaluate),
            Some(other) => Err(TrainError::Purpose { value: other.chars().take(40).collect() }),
        }
    }
}

/// Trains or evaluates the base model on the device's rows; gives the update in the form of the base model.
///
/// The order of the rows varies with the base model, not with the round's id, which holds a time:
/// so a whole federation can be repeated bit by bit.
pub fn run(assignment: &Assignment) -> Result<Answer, TrainError> {
    let Assignment { asked, hyperparams, purpose } = assignment;
    if *purpose == Purpose::Evaluate {
        return judge(assignment);
    }
    let data = Dataset::from_dir(asked.data_dir()?)?;
    let base = asked.model()?;
    let mut model = Model::from_base(&base, hyperparams.kind, data.features())?;
    let (variates, stream) = (asked.variates(&base)?, stream_of(&asked.model_uri));
    let report = match &variates {
        None => train(&mut model, &data, hyperparams, stream)?,
        Some(variates) => {
            let correction = variates.correction();
            train_corrected(&mut model, &data, hyperparams, stream, &correction)?
        }
    };
    let tensors = model.tensors().into_iter().map(|(name, tensor)| (name.to_owned(), tensor));
    let mut update = Update::new(report.num_samples as u64, tensors.collect());
    for (name, value) in report.metrics() {
        update = update.with(name, value);
    }
    if let Some(variates) = variates {
        let along = (report.steps, hyperparams.lr);
        let change = variates.after(&base, &update.tensors, along);
        update = update.with_control(change?);
    }
    let answer = update.answer(asked, &base);
    if let Err(guest::Error::NotFinite { .. }) = answer {
        let what = "a weight in the model's type";
        return Err(TrainError::Diverged { what, lr: hyperparams.lr });
    }
    Ok(answer?)
}

/// Says how the base model does on the device's held-out rows: metrics, and an update of no tensors.
fn judge(assignment: &Assignment) -> Result<Answer, TrainError> {
    let Assignment { asked, hyperparams, .. } = assignment;
    let dir = asked.data_dir()?;
    let apart = Dataset::held_out(dir)?;
    let data = match &apart {
        Some(apart) => apart.clone(),
        None => Dataset::from_dir(dir)?,
    };
    let base = asked.model()?;
    let model = Model::from_base(&base, hyperparams.kind, data.features())?;
    let (score, num_samples) = match apart {
        Some(apart) => (evaluate(&model, &apart, hyperparams.scale)?, apart.len()),
        None => evaluate_held_out(&model, &data, hyperparams)?,
    };
    if !score.loss.is_finite() {
        return Err(TrainError::Diverged { what: "the loss", lr: hyperparams.lr });
    }
    let mut update = Update::new(num_samples as u64, BTreeMap::new()).with("loss", score.loss);
    if let Some(accuracy) = score.accuracy {
        update = update.with("accuracy", accuracy);
    }
    Ok(update.evaluation(asked)?)
}
