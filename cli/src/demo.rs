//! The main job on real data: uneven parts, a platform, rounds, and an honest comparison.

mod central;
mod rows;
mod split;
mod stage;
mod story;

use std::path::PathBuf;

use serde_json::{Value, json};

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

/// What is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Network {
    /// Softmax regression
    #[default]
    Softmax,
    /// One hidden layer
    Mlp,
    /// Two convolutions with pools
    Cnn,
    /// The next character from the last one
    Bigram,
    /// The next character from all before it, by a gated recurrent unit
    Gru,
}

impl Network {
    /// What the training step is told of it; the first model needs to be told nothing.
    pub(crate) fn hyperparams(self) -> Value {
        match self {
            Self::Softmax => json!({}),
            Self::Mlp => json!({ "model": "mlp" }),
            Self::Cnn => json!({ "model": "cnn", "epochs": 2 }),
            Self::Bigram => json!({ "model": "bigram", "lr": 2, "epochs": 3 }),
            Self::Gru => json!({ "model": "gru", "lr": 0.5, "epochs": 3 }),
        }
    }

    /// The rows that come with the program for it.
    pub(crate) fn rows(self) -> anyhow::Result<Rows> {
        match self {
            Self::Softmax | Self::Mlp | Self::Cnn => Rows::digits(),
            Self::Bigram | Self::Gru => Rows::tales(),
        }
    }

    /// Those rows in words.
    pub(crate) const fn rows_called(self) -> &'static str {
        match self {
            Self::Softmax | Self::Mlp | Self::Cnn => "handwritten digits (UCI)",
            Self::Bigram | Self::Gru => "snippets of small tales",
        }
    }
}

/// Who plays, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Cast {
    pub(crate) dir: PathBuf,
    pub(crate) proplets: usize,
    pub(crate) rounds: u64,
    pub(crate) k: usize,
    pub(crate) network: Network,
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
