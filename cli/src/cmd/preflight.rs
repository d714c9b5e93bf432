//! `aileron preflight`: whether this device can take part, before it does.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::on_runtime;
use crate::{preflight, view};

#[derive(Debug, Args)]
pub(crate) struct Preflight {
    /// The proplet's settings
    #[arg(long, value_name = "FILE", default_value = "proplet.toml")]
    config: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

impl Preflight {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let report = on_runtime(async |stop| {
            tokio::select! {
                report = preflight::inspect(&self.config) => Ok(report),
                () = stop.cancelled() => anyhow::bail!("interrupted"),
            }
        })?;
        if self.json {
            view::json(&report.json());
        } else {
            report.lines().iter().for_each(view::line);
        }
        Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
