//! `aileron demo`: the main job, on real data, from nothing to a trained model.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    demo::{Cast, End, ModelFormat, Network, play, prepare},
    view,
};

const KEEP_DEFAULT: &str = ".aileron/demo";
/// The last file that is written when the stage is set.
const MARKER: &str = "model_0.json";

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Proplets that train
    #[arg(long, default_value_t = 3)]
    proplets: usize,
    /// Rounds of training
    #[arg(long, default_value_t = 10)]
    rounds: u64,
    /// Updates that close a round; all proplets if left out
    #[arg(long)]
    k: Option<usize>,
    /// What is trained; the last two say what comes next in a text
    #[arg(long, value_enum, default_value_t)]
    model: Network,
    /// Handed to the training step, over the demo's own: model (of the above, or linear), epochs,
    /// lr, batch_size, hidden, channels, l2, seed, scale
    #[arg(long, value_name = "JSON", default_value = "{}")]
    hyperparams: String,
    /// How uneven the split is: small is uneven, large is even (Dirichlet)
    #[arg(long, default_value_t = 0.5)]
    alpha: f64,
    /// Decides the split, the order of training and the first model
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Learn from the CSV files in this directory (features first, label last) instead of the
    /// digits, or the text
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How models and updates travel
    #[arg(long, value_enum, default_value_t)]
    model_format: ModelFormat,
    /// How updates are made smaller on the wire, like delta+int8+deflate
    #[arg(long)]
    encoding: Option<String>,
    /// Keep models, state and each proplet's part of the data in this directory, which is cleared
    /// first
    #[arg(long, value_name = "DIR", default_value = KEEP_DEFAULT)]
    keep: PathBuf,
    /// Only write model 0 and each proplet's part of the data, for a platform that runs elsewhere; what a demo has
    /// left there stays
    #[arg(long)]
    prepare: bool,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let only_prepare = self.prepare;
        let cast = self.cast()?;
        service::telemetry::init_quiet();
        if only_prepare {
            return prepare_only(&cast);
        }
        let end = super::on_runtime(async |stop| play(&cast, &stop).await)?;
        Ok(match end {
            End::Done => ExitCode::SUCCESS,
            End::Stopped => ExitCode::from(130),
        })
    }

    fn cast(self) -> anyhow::Result<Cast> {
        ensure!(self.proplets >= 1, "proplets takes at least 1, not {}", self.proplets);
        ensure!(self.rounds >= 1, "rounds takes at least 1, not {}", self.rounds);
        let k = self.k.unwrap_or(self.proplets);
        ensure!(
            (1..=self.proplets).contains(&k),
            "k takes 1 to {} (the proplets), not {k}",
            self.proplets
        );
        let marker = self.keep.join(MARKER);
        let ours = self.keep == Path::new(KEEP_DEFAULT) || marker.exists();
        let foreign = self.keep.exists() && !ours;
        let empty = || std::fs::read_dir(&self.keep).is_ok_and(|mut dir| dir.next().is_none());
        ensure!(
            self.prepare || !foreign || empty(),
            "{} holds something else than a demo; it would be cleared",
            self.keep.display()
        );
        Ok(Cast {
            hyperparams: hyperparams(&self.hyperparams, self.model, self.seed)?,
            network: self.model,
            dir: self.keep,
            proplets: self.proplets,
            rounds: self.rounds,
            k,
            alpha: self.alpha,
            seed: self.seed,
            data_dir: self.data_dir,
            model_format: self.model_format,
            encoding: self.encoding,
        })
    }
}

/// Leaves alone what is there: proplets may be learning from it.
fn prepare_only(cast: &Cast) -> anyhow::Result<ExitCode> {
    let dir = cast.dir.display();
    if cast.dir.join(MARKER).exists() {
        view::line(format!("{dir} has been prepared already"));
        return Ok(ExitCode::SUCCESS);
    }
    let shares = prepare(cast)?;
    view::line(format!("{dir}: {MARKER}, and rows for {} proplets: {shares:?}", shares.len()));
    Ok(ExitCode::SUCCESS)
}

/// The demo's own, under the user's. Nothing is held out on the proplets, since the demo holds out
/// a part of all rows itself.
fn hyperparams(given: &str, network: Network, seed: u64) -> anyhow::Result<String> {
    let given: Value =
        serde_json::from_str(given).with_context(|| format!("hyperparams {given:?}"))?;
    let Value::Object(given) = given else { bail!("hyperparams takes a JSON object, not {given}") };
    let own = json!({ "epochs": 5, "lr": 0.1, "batch_size": 16, "holdout": 0.0, "seed": seed });
    let mut merged: Map<String, Value> = own.as_object().cloned().unwrap_or_default();
    merged.extend(network.hyperparams().as_object().cloned().unwrap_or_default());
    merged.extend(given);
    Ok(Value::Object(merged).to_string())
}
