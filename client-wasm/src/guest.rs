//! The step as a proplet sees it: an assignment in the environment, an update on stdout or in a file.

use guest::{Answer, Update};

use crate::{Dataset, Hyperparams, Model, TrainError, random::stream_of, train};

/// What the environment asks for.
#[derive(Clone, Debug)]
pub struct Assignment {
    pub asked: guest::Assignment,
    pub hyperparams: Hyperparams,
}

impl Assignment {
    /// Reads what every guest does, with hyperparams that are this one's; `DATA_DIR` must be there.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, TrainError> {
        let asked = guest::Assignment::from_vars(var)?;
        asked.data_dir()?;
        let hyperparams = Hyperparams::from_keys(asked.hyperparams.keys())?;
        Ok(Self { asked, hyperparams })
    }
}

/// Trains the base model on the device's rows; gives the update in the form of the base model.
///
/// The order of the rows varies with the base model, not with the round's id, which holds a time:
/// so a whole federation can be repeated bit by bit.
pub fn run(assignment: &Assignment) -> Result<Answer, TrainError> {
    let Assignment { asked, hyperparams } = assignment;
    let data = Dataset::from_dir(asked.data_dir()?)?;
    let base = asked.model()?;
    let mut model = Model::from_base(&base, hyperparams.kind, data.features())?;
    let report = train(&mut model, &data, hyperparams, stream_of(&asked.model_uri))?;
    let tensors = model.tensors().into_iter().map(|(name, tensor)| (name.to_owned(), tensor));
    let mut update = Update::new(report.num_samples as u64, tensors.collect());
    for (name, value) in report.metrics(hyperparams) {
        update = update.with(name, value);
    }
    let answer = update.answer(asked, &base);
    if let Err(guest::Error::NotFinite { .. }) = answer {
        let what = "a weight in the model's type";
        return Err(TrainError::Diverged { what, lr: hyperparams.lr });
    }
    Ok(answer?)
}
