//! `aileron model`: the versions that the model server has published, and files of models.

mod files;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use protocol::{Digest, Form, ModelLine, ModelUri, ModelVersion, message::Model};
use serde_json::{Value, json};

use crate::{
    operator::LinkArgs,
    view::{self, Format},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Models {
    /// List the versions
    List {
        /// Of which line
        #[arg(long, value_name = "NAME", default_value_t)]
        line: ModelLine,
        #[command(flatten)]
        link: LinkArgs,
        /// text or json
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show the tensors of a version
    Show {
        #[command(flatten)]
        which: Which,
        /// text or json
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Write a version to a file, or to stdout
    Get {
        #[command(flatten)]
        which: Which,
        /// Where to write it, as it is; on stdout it is JSON
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
    /// Begin a line of models with a file as its version 0
    Begin {
        /// Name of the line: rounds and sessions are on it by that
        line: ModelLine,
        /// A JSON, safetensors or npz file
        file: PathBuf,
        #[command(flatten)]
        link: LinkArgs,
    },
    /// Make a file that can be model 0 from one of another program
    Import {
        /// A JSON, safetensors or npz file
        file: PathBuf,
        #[command(flatten)]
        target: files::Target,
    },
    /// Write a version, or a file, as a file for another program
    Export {
        #[command(flatten)]
        source: files::Source,
        #[command(flatten)]
        target: files::Target,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Version; the newest if left out
    version: Option<u64>,
    /// Of which line
    #[arg(long, value_name = "NAME", default_value_t)]
    line: ModelLine,
    #[command(flatten)]
    link: LinkArgs,
}

impl Models {
    pub(super) const fn format(&self) -> Format {
        match self {
            Self::List { format, .. } | Self::Show { format, .. } => *format,
            Self::Get { .. } | Self::Begin { .. } | Self::Import { .. } | Self::Export { .. } => {
                Format::Text
            }
        }
    }

    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        super::on_runtime(async |_| match self {
            Self::List { line, link, format } => list(&line, &link, format).await,
            Self::Show { which, format } => show(&which, format).await,
            Self::Get { which, output } => get(&which, output).await,
            Self::Begin { line, file, link } => files::begin(&line, &file, &link).await,
            Self::Import { file, target } => files::import(&file, &target),
            Self::Export { source, target } => files::export(&source, &target).await,
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Which {
    async fn fetch(&self) -> anyhow::Result<(bytes::Bytes, Model)> {
        let mut operator = self.link.connect(&[]).await?;
        let uri = match self.version {
            Some(version) => ModelUri { line: self.line.clone(), version: ModelVersion(version) },
            None => operator.latest(&self.line).await?.topic,
        };
        let found = operator.model(&uri).await?;
        operator.close().await;
        Ok(found)
    }
}

async fn list(line: &ModelLine, link: &LinkArgs, format: Format) -> anyhow::Result<()> {
    let mut operator = link.connect(&[]).await?;
    let newest = operator.latest(line).await?.version;
    let mut found = vec![];
    for version in (0..=newest.0).map(ModelVersion) {
        let uri = ModelUri { line: line.clone(), version };
        let (payload, model) = operator.model(&uri).await?;
        found.push((version, payload.len(), model, Digest::of(&payload)));
    }
    operator.close().await;
    match format {
        Format::Json => {
            let rows: Vec<Value> = found
                .iter()
                .map(|(version, len, model, digest)| {
                    json!({
                        "version": version, "bytes": len, "sha256": digest,
                        "parameters": model.tensors.schema().parameters(),
                    })
                })
                .collect();
            view::json(&rows.into());
        }
        Format::Text => view::table(
            &["version", "parameters", "bytes", "sha256"],
            found.iter().map(|(version, len, model, digest)| {
                vec![
                    version.to_string(),
                    model.tensors.schema().parameters().to_string(),
                    len.to_string(),
                    digest.to_string()[..16].to_owned(),
                ]
            }),
        ),
    }
    Ok(())
}

async fn show(which: &Which, format: Format) -> anyhow::Result<()> {
    let (payload, model) = which.fetch().await?;
    if format == Format::Json {
        view::json(&serde_json::to_value(&model)?);
        return Ok(());
    }
    view::line(format!("version {}, {} bytes as {}", model.version, payload.len(), model.form));
    view::table(
        &["tensor", "type", "shape", "smallest", "mean", "largest"],
        model.tensors.iter().map(|(name, tensor)| {
            let values = tensor.to_f64();
            let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            vec![
                name.to_owned(),
                tensor.dtype().to_string(),
                format!("{:?}", tensor.shape()),
                format!("{least:.4}"),
                format!("{mean:.4}"),
                format!("{most:.4}"),
            ]
        }),
    );
    Ok(())
}

async fn get(which: &Which, output: Option<PathBuf>) -> anyhow::Result<()> {
    let (payload, model) = which.fetch().await?;
    match output {
        None => match model.form {
            Form::Json => view::line(String::from_utf8_lossy(&payload)),
            Form::Safetensors => view::line(serde_json::to_string(&model)?),
        },
        Some(path) => {
            fs::write(&path, &payload).with_context(|| format!("write {}", path.display()))?;
            view::aside(format!("version {} is in {}", model.version, path.display()));
        }
    }
    Ok(())
}
