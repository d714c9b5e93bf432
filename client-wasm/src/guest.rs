//! The step as a proplet sees it: an assignment in the environment, an update on stdout.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde::Serialize;

use crate::{Dataset, Hyperparams, Model, Tensor, TrainError, random::stream_of, train};

/// What the environment asks for.
#[derive(Clone, Debug)]
pub struct Assignment {
    pub round_id: String,
    pub proplet_id: Option<String>,
    pub model_uri: String,
    pub hyperparams: Hyperparams,
    pub model_path: PathBuf,
    pub data_dir: PathBuf,
}

#[derive(Serialize)]
struct Update<'a> {
    round_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    proplet_id: Option<&'a str>,
    base_model_uri: &'a str,
    num_samples: usize,
    metrics: BTreeMap<&'static str, f64>,
    update: BTreeMap<&'static str, Tensor>,
}

impl Assignment {
    /// Reads `ROUND_ID`, `MODEL_URI`, `MODEL_PATH` and `DATA_DIR`, which must be there, and
    /// `HYPERPARAMS` and `PROPLET_ID`, which may.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, TrainError> {
        let needed = |name| var(name).ok_or(TrainError::MissingVar { name });
        Ok(Self {
            round_id: needed("ROUND_ID")?,
            proplet_id: var("PROPLET_ID"),
            model_uri: needed("MODEL_URI")?,
            hyperparams: Hyperparams::from_json(var("HYPERPARAMS").as_deref().unwrap_or("{}"))?,
            model_path: needed("MODEL_PATH")?.into(),
            data_dir: needed("DATA_DIR")?.into(),
        })
    }
}

/// Trains the base model on the device's rows; gives the update as one line of JSON.
///
/// The order of the rows varies with the base model, not with the round's id, which holds a time:
/// so a whole federation can be repeated bit by bit.
pub fn run(assignment: &Assignment) -> Result<String, TrainError> {
    let hyperparams = &assignment.hyperparams;
    let data = Dataset::from_dir(&assignment.data_dir)?;
    let base = fs::read_to_string(&assignment.model_path).map_err(|source| TrainError::Read {
        path: assignment.model_path.display().to_string(),
        source,
    })?;
    let mut model = Model::from_json(&base, hyperparams.kind, data.features())?;
    let report = train(&mut model, &data, hyperparams, stream_of(&assignment.model_uri))?;
    let update = Update {
        round_id: &assignment.round_id,
        proplet_id: assignment.proplet_id.as_deref(),
        base_model_uri: &assignment.model_uri,
        num_samples: report.num_samples,
        metrics: report.metrics(hyperparams),
        update: model.tensors(),
    };
    serde_json::to_string(&update).map_err(|source| TrainError::Encode { source })
}
