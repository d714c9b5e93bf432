//! What the environment asks of a guest.

use std::{env, path::PathBuf};

use crate::{BaseModel, Error, Hyperparams, data};

/// One training step, as the proplet set it.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    pub round_id: String,
    pub proplet_id: Option<String>,
    /// The address of the base model; an update names it.
    pub model_uri: String,
    pub hyperparams: Hyperparams,
    /// The base model's bytes.
    pub model_path: PathBuf,
    /// The device's own data, read-only; absent where the device has none.
    pub data_dir: Option<PathBuf>,
    /// Where the update to a model that is a file goes.
    pub update_path: Option<PathBuf>,
    /// The strategy of the round, where its guests have to do something about it.
    pub strategy: Option<String>,
    /// The server's control variate, and the participant's own from before; see
    /// [`Variates`](crate::Variates).
    pub control_path: Option<PathBuf>,
    pub state_path: Option<PathBuf>,
    /// Where the participant's own goes.
    pub state_out_path: Option<PathBuf>,
}

impl Assignment {
    /// Reads the variables of this process.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_vars(|name| env::var(name).ok())
    }

    /// Reads `ROUND_ID`, `MODEL_URI` and `MODEL_PATH`, which must be there, and `PROPLET_ID`,
    /// `HYPERPARAMS`, `DATA_DIR`, `UPDATE_PATH`, `STRATEGY`, `CONTROL_PATH`, `STATE_PATH` and
    /// `STATE_OUT_PATH`, which may.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let needed = |name| var(name).ok_or(Error::MissingVar { name });
        Ok(Self {
            round_id: needed("ROUND_ID")?,
            proplet_id: var("PROPLET_ID"),
            model_uri: needed("MODEL_URI")?,
            hyperparams: Hyperparams::from_json(var("HYPERPARAMS").as_deref().unwrap_or("{}"))?,
            model_path: needed("MODEL_PATH")?.into(),
            data_dir: var("DATA_DIR").map(PathBuf::from),
            update_path: var("UPDATE_PATH").map(PathBuf::from),
            strategy: var("STRATEGY"),
            control_path: var("CONTROL_PATH").map(PathBuf::from),
            state_path: var("STATE_PATH").map(PathBuf::from),
            state_out_path: var("STATE_OUT_PATH").map(PathBuf::from),
        })
    }

    /// The base model.
    pub fn model(&self) -> Result<BaseModel, Error> {
        BaseModel::read(&self.model_path)
    }

    /// The directory of the device's data; an error where there is none.
    pub fn data_dir(&self) -> Result<&PathBuf, Error> {
        self.data_dir.as_ref().ok_or(Error::MissingVar { name: "DATA_DIR" })
    }

    /// The device's files with this extension, in the order of their names.
    pub fn files(&self, extension: &str) -> Result<Vec<PathBuf>, Error> {
        data::files(self.data_dir()?, extension)
    }

    /// All rows of the device's `*.csv` files, as numbers.
    pub fn rows(&self) -> Result<Vec<Vec<f64>>, Error> {
        data::rows_of(self.data_dir()?)
    }
}
