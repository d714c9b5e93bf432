//! What is set up before the first round: the split, one directory a proplet, model 0.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use client_wasm::{Hyperparams, initial_model};
use modelfile::FileFormat;
use protocol::{DType, ModelVersion};

use super::{Cast, ModelFormat, rows::Rows, split::dirichlet};

/// Share of the rows that nobody trains on.
const TEST_SHARE: f64 = 0.2;

/// The rows in their places.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) train: Rows,
    pub(crate) test: Rows,
    /// Rows of each proplet.
    pub(crate) shares: Vec<usize>,
    /// Labels of which a proplet has at least a handful of rows, by proplet.
    pub(crate) labels: Vec<usize>,
    /// Each proplet's own directory is below it.
    pub(crate) data_dir: PathBuf,
    pub(crate) model_file: PathBuf,
}

/// Splits the rows, and writes each proplet's part where only that proplet is pointed at.
pub(crate) fn set(cast: &Cast, hyperparams: &Hyperparams) -> anyhow::Result<Stage> {
    let rows = match &cast.data_dir {
        Some(dir) => Rows::from_dir(dir)?,
        None => cast.network.rows()?,
    };
    let classes = rows.classes()?;
    let (train, test) = rows.hold_out(TEST_SHARE, cast.seed);
    let parts = dirichlet(&train, cast.proplets, cast.alpha, cast.seed)?;
    let data_dir = cast.dir.join("data");
    for (number, part) in parts.iter().enumerate() {
        let dir = data_dir.join(format!("proplet-{}", number + 1));
        write(&dir.join("train.csv"), part.to_csv())?;
    }
    let model = initial_model(hyperparams.kind, rows.features(), classes, cast.seed)?.to_json(0)?;
    let model_file = model_0(cast, model)?;
    let shares = parts.iter().map(Rows::len).collect();
    let labels = parts
        .iter()
        .map(|part| part.by_label().iter().filter(|rows| rows.len() >= 5).count())
        .collect();
    Ok(Stage { train, test, shares, labels, data_dir, model_file })
}

/// Text in any case: it marks the directory as a demo's.
fn model_0(cast: &Cast, text: String) -> anyhow::Result<PathBuf> {
    let path = cast.dir.join("model_0.json");
    write(&path, &text)?;
    match cast.model_format {
        ModelFormat::Json => Ok(path),
        ModelFormat::Safetensors => {
            let tensors = modelfile::read(&text.into(), u64::MAX)?;
            let tensors = modelfile::cast(&tensors, DType::F32)?;
            let file = modelfile::write(&tensors, ModelVersion(0), FileFormat::Safetensors)?;
            let path = cast.dir.join("model_0.safetensors");
            write(&path, &file)?;
            Ok(path)
        }
    }
}

fn write(path: &Path, content: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let dir = path.parent().unwrap_or(path);
    fs::create_dir_all(dir).with_context(|| format!("make directory {}", dir.display()))?;
    fs::write(path, content).with_context(|| format!("write {}", path.display()))
}
