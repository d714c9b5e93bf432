//! Workloads in registries: pushed, signed, and pulled.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use access::{SigningKey, sign_module};
use anyhow::{Context as _, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use protocol::{Digest, ImageRef};
use registry::{Image, Registry, RegistryArgs};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::view::{self, Format};

/// How a module or a component begins.
const MAGIC: &[u8] = b"\0asm";

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The program
    file: PathBuf,
    /// Where to: oci://host/name:tag
    image: ImageRef,
    /// Sign the program with this key, from `aileron workload key`
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// text or json
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// The image: oci://host/name:tag or oci://host/name@sha256:...
    image: ImageRef,
    /// Where to
    file: PathBuf,
    /// Bytes of the largest program
    #[arg(long, value_name = "BYTES", default_value = "268435456")]
    bytes_max: u64,
    #[command(flatten)]
    registry: RegistryArgs,
    /// text or json
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Key {
    /// The private half; it is made if it is not there
    file: PathBuf,
}

impl Push {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        service::telemetry::init_quiet();
        let module = read(&self.file)?;
        let signature = match &self.signing_key {
            Some(path) => Some(sign_module(&SigningKey::load(path)?, Digest::of(&module))),
            None => None,
        };
        let registry = Registry::new(self.registry.settings(), None);
        let bar = bar(&self.image);
        let signed = signature.is_some();
        let pushed = super::super::on_runtime(async |stop| {
            let mut told = |sent, size| show(&bar, sent, size);
            or_stopped(registry.push(&self.image, module.into(), signature, &mut told), &stop).await
        })?;
        bar.finish_and_clear();
        let Some(pushed) = pushed else { return Ok(ExitCode::from(130)) };
        match self.format {
            Format::Json => view::json(&json!({
                "image": pushed.image.to_string(),
                "module_sha256": pushed.module.to_string(),
                "signed": signed,
                "was_there": pushed.was_there,
            })),
            Format::Text => {
                let how = if pushed.was_there { "was there already" } else { "pushed" };
                view::line(pushed.image.to_string());
                view::aside(format!("module {} {how}", pushed.module));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Pull {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        service::telemetry::init_quiet();
        let registry = Registry::new(self.registry.settings(), None);
        let bar = bar(&self.image);
        let pulled = super::super::on_runtime(async |stop| {
            let mut told = |had, size| show(&bar, had, size);
            let pull = registry.pull_to(&self.image, &self.file, self.bytes_max, &mut told);
            or_stopped(pull, &stop).await
        })?;
        bar.finish_and_clear();
        let Some(Image { image, module, size, signature, .. }) = pulled else {
            return Ok(ExitCode::from(130));
        };
        match self.format {
            Format::Json => view::json(&json!({
                "image": image.to_string(),
                "module_sha256": module.to_string(),
                "bytes": size,
                "signature": signature,
            })),
            Format::Text => {
                view::line(format!("{} ({size} bytes)", self.file.display()));
                view::aside(format!("from {image}, module {module}"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Key {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let key = if self.file.exists() {
            SigningKey::load(&self.file)?
        } else {
            let key = SigningKey::make()?;
            key.save(&self.file)?;
            view::aside(format!("{} is new; whoever has it can sign modules", self.file.display()));
            key
        };
        view::line(key.public());
        Ok(ExitCode::SUCCESS)
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let module = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let what = "is not a WebAssembly module or component";
    ensure!(module.starts_with(MAGIC), "{} {what}", path.display());
    Ok(module)
}

/// Nothing if the operator has had enough.
async fn or_stopped<T>(
    work: impl Future<Output = Result<T, registry::RegistryError>>,
    stop: &CancellationToken,
) -> anyhow::Result<Option<T>> {
    tokio::select! {
        done = work => Ok(Some(done?)),
        () = stop.cancelled() => Ok(None),
    }
}

fn bar(image: &ImageRef) -> ProgressBar {
    let bar = ProgressBar::no_length().with_message(image.to_string());
    let style =
        ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.with_style(style.expect("the template is one"))
}

fn show(bar: &ProgressBar, done: u64, size: u64) {
    bar.set_length(size);
    bar.set_position(done);
}
