//! The guest: one training step as a WASI command, for preview 1, preview 2 and native alike.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use client_wasm::{Assignment, run};

fn main() -> ExitCode {
    let answer =
        Assignment::from_vars(|name| env::var(name).ok()).and_then(|assignment| run(&assignment));
    let said = match answer {
        Ok(answer) => match answer.write() {
            Ok(()) => return ExitCode::SUCCESS,
            Err(why) => format!("the update cannot be written: {why}"),
        },
        Err(why) => format!("training failed: {why}"),
    };
    // Nothing is left to tell of a failure to write to stderr.
    let _ = writeln!(io::stderr(), "{said}");
    ExitCode::FAILURE
}
