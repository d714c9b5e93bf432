//! The guest: one training step as a WASI command, for preview 1, preview 2 and native alike.

use std::{
    env, fs,
    io::{self, Write},
    process::ExitCode,
};

use client_wasm::{Assignment, Made, run};

fn main() -> ExitCode {
    let update =
        Assignment::from_vars(|name| env::var(name).ok()).and_then(|assignment| run(&assignment));
    let written = match update {
        Ok(Made::Json(json)) => writeln!(io::stdout(), "{json}"),
        Ok(Made::File { path, bytes }) => fs::write(path, bytes),
        Err(why) => {
            // Nothing is left to tell of a failure to write to stderr.
            let _ = writeln!(io::stderr(), "training failed: {why}");
            return ExitCode::FAILURE;
        }
    };
    match written.and_then(|()| io::stdout().flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(io::stderr(), "the update cannot be written: {why}");
            ExitCode::FAILURE
        }
    }
}
