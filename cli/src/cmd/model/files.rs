//! Models from and for other programs: any of JSON, safetensors and npz into any other.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use clap::Args;
use modelfile::FileFormat;
use protocol::{DType, Digest, Form, ModelLine, ModelVersion, Tensors, message::Model};

use super::Which;
use crate::{operator::LinkArgs, view};

/// More numbers than this are not unpacked from a file, in bytes.
const BYTES_MAX: u64 = 64 << 30;

/// What the new file is.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The file to write; its name ends in .json, .safetensors or .npz
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    /// Round all numbers to one type: F64, F32, F16, BF16 or I8; without it they stay as they are
    #[arg(long = "type", value_name = "TYPE")]
    dtype: Option<DType>,
}

/// Where an exported model comes from.
#[derive(Debug, Args)]
pub(crate) struct Source {
    #[command(flatten)]
    which: Which,
    /// Take the model from a file in place of a version
    #[arg(long, value_name = "FILE", conflicts_with = "version")]
    from: Option<PathBuf>,
}

/// A file of another program becomes one that can be model 0.
pub(super) fn import(file: &Path, target: &Target) -> anyhow::Result<()> {
    target.write(&read(file)?, ModelVersion(0))
}

/// A file becomes the first model of a line.
pub(super) async fn begin(line: &ModelLine, file: &Path, link: &LinkArgs) -> anyhow::Result<()> {
    let is_json = file.extension().is_some_and(|ending| ending == "json");
    let form = if is_json { Form::Json } else { Form::Safetensors };
    let model = Model { version: ModelVersion(0), tensors: read(file)?, form };
    let mut operator = link.connect(&[]).await?;
    let begun = operator.begin_line(line, &model).await?;
    operator.close().await;
    ensure!(
        begun.version > ModelVersion(0) || begun.sha256 == Digest::of(&model.write()),
        "{line} has begun before, with another model"
    );
    view::line(format!("{} is the newest model of {line}", begun.topic));
    Ok(())
}

pub(super) async fn export(source: &Source, target: &Target) -> anyhow::Result<()> {
    // A name that ends in nothing known is found before anything is fetched.
    target.format()?;
    match &source.from {
        Some(file) => target.write(&read(file)?, ModelVersion(0)),
        None => {
            let (_, model) = source.which.fetch().await?;
            target.write(&model.tensors, model.version)
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Tensors> {
    let named = || path.display().to_string();
    let file = fs::read(path).with_context(|| format!("read {}", named()))?;
    modelfile::read(&file.into(), BYTES_MAX).with_context(named)
}

impl Target {
    fn format(&self) -> anyhow::Result<FileFormat> {
        let name = self.out.display().to_string();
        Ok(FileFormat::of_name(&name)?)
    }

    fn write(&self, tensors: &Tensors, version: ModelVersion) -> anyhow::Result<()> {
        let format = self.format()?;
        let path = self.out.display();
        let cast = self.dtype.map(|dtype| modelfile::cast(tensors, dtype)).transpose()?;
        let tensors = cast.as_ref().unwrap_or(tensors);
        let file = modelfile::write(tensors, version, format)?;
        fs::write(&self.out, &file).with_context(|| format!("write {path}"))?;
        let (count, parameters) = (tensors.len(), tensors.schema().parameters());
        let len = file.len();
        view::aside(format!("{count} tensors, {parameters} parameters, {len} bytes in {path}"));
        Ok(())
    }
}
