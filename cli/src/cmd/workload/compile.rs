//! `aileron workload compile`: what a compiler on the device would do, done here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use proplet::executor::{Metering, Program, SUM_EXTENSION, Target, precompile};
use protocol::Digest;
use serde_json::json;

use crate::view::{self, Format};

/// Compiled code does whatever it says: a proplet runs it only if it lies in the directory that its owner has named
/// (precompiled_dir), under the name that is given to it here, or if he has listed its digest (precompiled_allow).
#[derive(Debug, Args)]
pub(crate) struct Compile {
    /// A WebAssembly module or component
    #[arg(required_unless_present = "builtin")]
    file: Option<PathBuf>,
    /// The built-in client that trains, instead of a file
    #[arg(long, conflicts_with = "file")]
    builtin: bool,
    /// The kind of machine that is to run it
    #[arg(long, value_enum)]
    target: Target,
    /// File to write, or a directory, for a file named by the program's digest
    #[arg(short, long, value_name = "PATH", default_value = ".")]
    out: PathBuf,
    /// Count instructions, for proplets whose fuel_max is set
    #[arg(long)]
    fuel: bool,
    /// text or json
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

impl Compile {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let program = self.program()?;
        let metering = if self.fuel { Metering::Fuel } else { Metering::Off };
        let compiled = precompile(&program, self.target, metering).with_context(|| self.hint())?;
        let path = match self.out.is_dir() {
            true => self.out.join(format!("{}.cwasm", program.digest())),
            false => self.out.clone(),
        };
        let sha256 = Digest::of(&compiled);
        write(&path, &compiled)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        write(&path.with_added_extension(SUM_EXTENSION), format!("{sha256}  {name}\n").as_bytes())?;
        self.say(&path, &program, (sha256, compiled.len()));
        Ok(ExitCode::SUCCESS)
    }

    fn program(&self) -> anyhow::Result<Program> {
        let Some(path) = &self.file else { return Ok(Program::builtin()) };
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok(Program::new(bytes))
    }

    fn hint(&self) -> String {
        let name = self.target.name();
        match Target::HERE == Some(self.target) || cfg!(feature = "cross") {
            true => format!("cannot compile for {name}"),
            false => format!(
                "cannot compile for {name}; if it is this program that cannot: build it with \
                 --features cross, as deploy/build does"
            ),
        }
    }

    fn say(&self, path: &Path, program: &Program, (sha256, size): (Digest, usize)) {
        let (path, target, program) = (path.display(), self.target.name(), program.digest());
        match self.format {
            Format::Text => view::line(format!(
                "{path}: {size} bytes for {target}\nsha256      {sha256}\nof program  {program}"
            )),
            Format::Json => view::json(&json!({
                "file": path.to_string(), "bytes": size, "target": target,
                "sha256": sha256, "program": program,
            })),
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}
