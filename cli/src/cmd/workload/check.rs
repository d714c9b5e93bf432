//! `aileron workload check`: what a program is, and whether a proplet could run it.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use proplet::executor::{Failure, Given, Inspection, Limits, Program, Settings, inspect};
use serde_json::json;

use crate::view::{self, Format};

/// What the embedded broker and most others take in one message; base64 makes a third more.
const MESSAGE_BYTES: usize = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// A WebAssembly module or component
    file: PathBuf,
    /// Memory that the device's owner allows, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().memory_bytes_max as u64)]
    memory: u64,
    /// text or json
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

impl Check {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let path = self.file.display();
        let bytes = fs::read(&self.file).with_context(|| format!("read {path}"))?;
        let size = bytes.len();
        let settings = Settings::below(&std::env::temp_dir());
        let found = inspect(&Program::new(bytes), &settings);
        let problems = match &found {
            Ok(found) => self.problems(found),
            Err(why) => vec![why.to_string()],
        };
        match self.format {
            Format::Json => self.json(size, found.as_ref().ok(), &problems),
            Format::Text => self.text(size, found.as_ref().ok(), &problems),
        }
        Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// All that is in the way, in words.
    fn problems(&self, found: &Inspection) -> Vec<String> {
        let missing = found.imports.iter().filter(|import| import.given == Given::No);
        let mut problems: Vec<String> = missing
            .map(|import| format!("it wants {}, which the sandbox does not have", import.name))
            .collect();
        match &found.entry {
            // Said already, of every import.
            Err(Failure::Link { .. }) if !problems.is_empty() => {}
            Err(why) => problems.push(why.to_string()),
            Ok(_) => {}
        }
        if let Some(initial) = found.memory_bytes_initial.filter(|it| *it > self.memory) {
            problems.push(format!(
                "it begins with {initial} bytes of memory, the owner allows {}",
                self.memory
            ));
        }
        problems
    }

    fn text(&self, size: usize, found: Option<&Inspection>, problems: &[String]) {
        if let Some(found) = found {
            let memory = |bytes: Option<u64>| bytes.map_or("-".to_owned(), |it| it.to_string());
            let travels = match size.div_ceil(3) * 4 > MESSAGE_BYTES {
                true => "too large for a message of 1 MiB: give it by URL (--image)",
                false => "fits a message",
            };
            view::line(format!(
                "{}: a {}, {size} bytes, {travels}",
                self.file.display(),
                found.kind
            ));
            view::line(format!("entry       {}", found.entry.as_deref().unwrap_or("-")));
            view::line(format!("exports     {}", found.exports.join(", ")));
            view::line(format!(
                "memory      {} bytes at first, {} at most (the owner allows {})",
                memory(found.memory_bytes_initial),
                memory(found.memory_bytes_max),
                self.memory
            ));
            view::line(format!("compiled    in {:.1} ms", found.compile_us as f64 / 1e3));
            view::line(format!("imports     {}", found.imports.len()));
            for import in &found.imports {
                let given = match import.given {
                    Given::Yes => "given  ",
                    Given::No => "MISSING",
                };
                view::line(format!("  {given}   {}", import.name));
            }
        }
        match problems {
            [] => view::line("A proplet can run it."),
            problems => {
                view::line("A proplet cannot run it:");
                problems.iter().for_each(|problem| view::line(format!("  {problem}")));
            }
        }
    }

    fn json(&self, size: usize, found: Option<&Inspection>, problems: &[String]) {
        let found = found.map(|found| {
            let imports = found.imports.iter();
            let imports =
                imports.map(|it| json!({ "name": it.name, "given": it.given == Given::Yes }));
            json!({
                "kind": found.kind,
                "entry": found.entry.as_deref().ok(),
                "exports": found.exports,
                "imports": imports.collect::<Vec<_>>(),
                "memory_bytes_initial": found.memory_bytes_initial,
                "memory_bytes_max": found.memory_bytes_max,
                "compile_us": found.compile_us,
            })
        });
        view::json(&json!({
            "file": self.file.display().to_string(), "bytes": size, "program": found,
            "problems": problems, "runs": problems.is_empty(),
        }));
    }
}
