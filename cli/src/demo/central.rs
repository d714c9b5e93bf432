//! What the same model reaches on the same rows in one place, and how any model does on rows that
//! nobody trained on.

use bytes::Bytes;
use client_wasm::{Dataset, Hyperparams, Model, Score, evaluate, initial_model, train};

use super::rows::Rows;

/// The held-out rows, ready to judge models.
#[derive(Debug)]
pub(crate) struct Judge {
    test: Dataset,
    hyperparams: Hyperparams,
    features: usize,
}

impl Judge {
    pub(crate) fn new(test: &Rows, hyperparams: &Hyperparams) -> anyhow::Result<Self> {
        let features = test.features();
        Ok(Self { test: dataset(test)?, hyperparams: hyperparams.clone(), features })
    }

    /// Loss and accuracy of a published model.
    pub(crate) fn score(&self, model: &[u8]) -> anyhow::Result<Score> {
        // The same numbers, in the form that the training step reads here.
        let model = protocol::message::Model::read(&Bytes::copy_from_slice(model))?;
        let text = serde_json::to_string(&model)?;
        let model = Model::from_json(&text, self.hyperparams.kind, self.features)?;
        Ok(evaluate(&model, &self.test, self.hyperparams.scale)?)
    }

    /// Accuracy of the same model trained on all rows in one place, with as many passes over the
    /// rows as the rounds make.
    pub(crate) fn central(&self, rows: &Rows, rounds: u64) -> anyhow::Result<Score> {
        let mut hyperparams = self.hyperparams.clone();
        hyperparams.epochs = hyperparams.epochs.saturating_mul(rounds.max(1));
        hyperparams.holdout = 0.0;
        let classes = rows.classes()?;
        let mut model = initial_model(hyperparams.kind, self.features, classes, hyperparams.seed)?;
        train(&mut model, &dataset(rows)?, &hyperparams, 0)?;
        Ok(evaluate(&model, &self.test, hyperparams.scale)?)
    }
}

fn dataset(rows: &Rows) -> anyhow::Result<Dataset> {
    let mut dataset = Dataset::default();
    dataset.append("rows", rows.to_csv().as_bytes())?;
    Ok(dataset)
}
