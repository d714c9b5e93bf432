//! The step as a proplet sees it: an assignment in the environment, an update on stdout or in a file.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    Dataset, Hyperparams, Model, Report, Tensor, TrainError, evaluate, evaluate_held_out,
    random::stream_of,
    safetensors::{self, Typed, Width},
    train,
};

/// What the environment asks for.
#[derive(Clone, Debug)]
pub struct Assignment {
    pub round_id: String,
    pub proplet_id: Option<String>,
    pub model_uri: String,
    pub hyperparams: Hyperparams,
    pub model_path: PathBuf,
    pub data_dir: PathBuf,
    /// Where the update to a model that is a file goes.
    pub update_path: Option<PathBuf>,
    pub purpose: Purpose,
}

/// What the step is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Train,
    /// Say how the model does on rows that it was not trained on.
    Evaluate,
}

/// An update, in the form of its base model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// One line of JSON, for stdout.
    Json(String),
    /// A safetensors file, and where it goes.
    File { path: PathBuf, bytes: Vec<u8> },
}

/// What is trained, and how its update is to be written.
struct Base {
    model: Model,
    /// The type of each tensor, where the model has types.
    widths: Option<BTreeMap<String, Width>>,
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
    /// `HYPERPARAMS`, `PROPLET_ID`, `UPDATE_PATH` and `PURPOSE`, which may.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, TrainError> {
        let needed = |name| var(name).ok_or(TrainError::MissingVar { name });
        Ok(Self {
            round_id: needed("ROUND_ID")?,
            proplet_id: var("PROPLET_ID"),
            model_uri: needed("MODEL_URI")?,
            hyperparams: Hyperparams::from_json(var("HYPERPARAMS").as_deref().unwrap_or("{}"))?,
            model_path: needed("MODEL_PATH")?.into(),
            data_dir: needed("DATA_DIR")?.into(),
            update_path: var("UPDATE_PATH").map(PathBuf::from),
            purpose: Purpose::read(var("PURPOSE"))?,
        })
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

/// Says how the base model does on the device's held-out rows: metrics, and an update of no tensors.
fn judge(assignment: &Assignment) -> Result<Made, TrainError> {
    let hyperparams = &assignment.hyperparams;
    let apart = Dataset::held_out(&assignment.data_dir)?;
    let data = match &apart {
        Some(apart) => apart.clone(),
        None => Dataset::from_dir(&assignment.data_dir)?,
    };
    let Base { model, .. } = read(&assignment.model_path, hyperparams, &data)?;
    let (score, num_samples) = match apart {
        Some(apart) => (evaluate(&model, &apart, hyperparams.scale)?, apart.len()),
        None => evaluate_held_out(&model, &data, hyperparams)?,
    };
    if !score.loss.is_finite() {
        return Err(TrainError::Diverged { what: "the loss", lr: hyperparams.lr });
    }
    let mut metrics = BTreeMap::from([("loss", score.loss)]);
    metrics.extend(score.accuracy.map(|part| ("accuracy", part)));
    let update = Update {
        round_id: &assignment.round_id,
        proplet_id: assignment.proplet_id.as_deref(),
        base_model_uri: &assignment.model_uri,
        num_samples,
        metrics,
        update: BTreeMap::new(),
    };
    let text = serde_json::to_string(&update).map_err(|source| TrainError::Encode { source })?;
    Ok(Made::Json(text))
}

/// Trains or evaluates the base model on the device's rows; gives the update in the form of the base model.
///
/// The order of the rows varies with the base model, not with the round's id, which holds a time:
/// so a whole federation can be repeated bit by bit.
pub fn run(assignment: &Assignment) -> Result<Made, TrainError> {
    if assignment.purpose == Purpose::Evaluate {
        return judge(assignment);
    }
    let hyperparams = &assignment.hyperparams;
    let data = Dataset::from_dir(&assignment.data_dir)?;
    let Base { mut model, widths } = read(&assignment.model_path, hyperparams, &data)?;
    let report = train(&mut model, &data, hyperparams, stream_of(&assignment.model_uri))?;
    match widths {
        None => assignment.text(&model, &report).map(Made::Json),
        Some(widths) => assignment.file(&model, &report, &widths),
    }
}

fn read(path: &Path, hyperparams: &Hyperparams, data: &Dataset) -> Result<Base, TrainError> {
    let failed = |source| TrainError::Read { path: path.display().to_string(), source };
    let bytes = fs::read(path).map_err(failed)?;
    let (kind, features) = (hyperparams.kind, data.features());
    if safetensors::is_file(&bytes) {
        let typed = safetensors::read(&bytes)?;
        let widths = typed.iter().map(|(name, (_, width))| (name.clone(), *width)).collect();
        let tensors = typed.into_iter().map(|(name, (tensor, _))| (name, tensor)).collect();
        let model = Model::from_tensors(&tensors, kind, features)?;
        return Ok(Base { model, widths: Some(widths) });
    }
    let text = String::from_utf8(bytes)
        .map_err(|why| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, why)))?;
    Ok(Base { model: Model::from_json(&text, kind, features)?, widths: None })
}

impl Assignment {
    fn text(&self, model: &Model, report: &Report) -> Result<String, TrainError> {
        let update = Update {
            round_id: &self.round_id,
            proplet_id: self.proplet_id.as_deref(),
            base_model_uri: &self.model_uri,
            num_samples: report.num_samples,
            metrics: report.metrics(&self.hyperparams),
            update: model.tensors(),
        };
        serde_json::to_string(&update).map_err(|source| TrainError::Encode { source })
    }

    fn file(
        &self,
        model: &Model,
        report: &Report,
        widths: &BTreeMap<String, Width>,
    ) -> Result<Made, TrainError> {
        let path = self.update_path.clone();
        let path = path.ok_or(TrainError::MissingVar { name: "UPDATE_PATH" })?;
        let mut typed = Typed::new();
        for (name, tensor) in model.tensors() {
            // A model has the names of its base, so each has a type.
            let width = widths.get(name).copied().unwrap_or(Width::F64);
            if !tensor.values.iter().all(|value| width.holds(*value)) {
                let lr = self.hyperparams.lr;
                return Err(TrainError::Diverged { what: "a weight in the model's type", lr });
            }
            typed.insert(name.to_owned(), (tensor, width));
        }
        let metrics = serde_json::to_string(&report.metrics(&self.hyperparams));
        let metrics = metrics.map_err(|source| TrainError::Encode { source })?;
        let mut metadata = BTreeMap::from([
            ("round_id", self.round_id.clone()),
            ("base_model_uri", self.model_uri.clone()),
            ("num_samples", report.num_samples.to_string()),
            ("metrics", metrics),
        ]);
        metadata.extend(self.proplet_id.clone().map(|id| ("proplet_id", id)));
        Ok(Made::File { path, bytes: safetensors::write(&typed, &metadata)? })
    }
}
