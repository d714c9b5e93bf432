//! `aileron workload`: one's own training step, made, built, checked and tried without a broker.

mod check;
mod images;
mod compile;
mod run;

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;

use crate::{
    view::{self, Format},
    workload::{self, Lang, Project},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Workload {
    /// Make a directory with a workload that builds and trains
    New {
        /// The directory, and the workload's name: a-z 0-9 - _
        name: PathBuf,
        /// What it is written in
        #[arg(long, value_enum, default_value_t = Lang::Rust)]
        lang: Lang,
    },
    /// Build a workload with its language's own tools
    Build {
        /// The workload's directory
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    /// Say whether a proplet could run a program, and what it wants
    Check(check::Check),
    /// Compile a program ahead of time, for devices that trust it and have no compiler
    Compile(compile::Compile),
    /// Try a program on this machine, and judge its updates as the coordinator would
    Run(Box<run::Run>),
    /// Put a program into a registry, where proplets can get it
    Push(Box<images::Push>),
    /// Get a program out of a registry
    Pull(Box<images::Pull>),
    /// Make a key to sign programs with, and show its public half
    Key(images::Key),
}

impl Workload {
    pub(super) const fn format(&self) -> Format {
        match self {
            Self::New { .. } | Self::Build { .. } | Self::Key(_) => Format::Text,
            Self::Check(check) => check.format,
            Self::Compile(compile) => compile.format,
            Self::Run(run) => run.format,
            Self::Push(push) => push.format,
            Self::Pull(pull) => pull.format,
        }
    }

    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::New { name, lang } => {
                let project = workload::write(&name, lang)?;
                let (dir, wasm) = (project.dir.display(), project.wasm());
                let wasm = wasm.display();
                view::aside(format!(
                    "A workload in {lang} is in {dir}. It needs {}.\nNext:\n  \
                     aileron workload build {dir}\n  \
                     aileron workload check {wasm}\n  \
                     aileron workload run {wasm} --data {dir}/data --rounds 5",
                    lang.needs()
                ));
                Ok(ExitCode::SUCCESS)
            }
            Self::Build { dir } => {
                let project = Project::open(&dir)?;
                workload::build(&project)?;
                let len = std::fs::metadata(project.wasm()).map_or(0, |meta| meta.len());
                view::line(format!("{} ({len} bytes)", project.wasm().display()));
                Ok(ExitCode::SUCCESS)
            }
            Self::Check(check) => check.run(),
            Self::Compile(compile) => compile.run(),
            Self::Run(run) => run.run(),
            Self::Push(push) => push.run(),
            Self::Pull(pull) => pull.run(),
            Self::Key(key) => key.run(),
        }
    }
}
