//! The main job on real data: uneven parts, a platform, rounds, and an honest comparison.

mod central;
mod rows;
mod split;
mod stage;
mod story;

use std::path::PathBuf;

pub(crate) use central::Judge;
pub(crate) use rows::Rows;
pub(crate) use split::{Sizes, dirichlet, dirichlet_of};
pub(crate) use story::{End, play};

/// The form of model 0, and so of everything that follows from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ModelFormat {
    /// For eyes
    #[default]
    Json,
    /// Files of F32
    Safetensors,
}

/// Who plays, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Cast {
    pub(crate) dir: PathBuf,
    pub(crate) proplets: usize,
    pub(crate) rounds: u64,
    pub(crate) k: usize,
    /// JSON.
    pub(crate) hyperparams: String,
    pub(crate) alpha: f64,
    pub(crate) seed: u64,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) model_format: ModelFormat,
    pub(crate) encoding: Option<String>,
}

/// Sets the stage without a play on it; rows of each proplet.
pub(crate) fn prepare(cast: &Cast) -> anyhow::Result<Vec<usize>> {
    let hyperparams = client_wasm::Hyperparams::from_json(&cast.hyperparams)?;
    Ok(stage::set(cast, &hyperparams)?.shares)
}
