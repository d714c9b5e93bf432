//! A guest's `main`: read, step, answer, and say on stderr why not.

use std::{
    error::Error,
    io::{self, Write as _},
    process::ExitCode,
};

use crate::{Assignment, BaseModel, Update};

/// Whatever made a step impossible.
pub type StepError = Box<dyn Error>;

/// Runs one step as a command: an update on success, exit code 1 and a reason on stderr otherwise.
pub fn main(step: impl FnOnce(&Assignment, &BaseModel) -> Result<Update, StepError>) -> ExitCode {
    match perform(step) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nothing is left to tell of a failure to write to stderr.
            let _ = writeln!(io::stderr(), "training failed: {why}");
            ExitCode::FAILURE
        }
    }
}

fn perform(
    step: impl FnOnce(&Assignment, &BaseModel) -> Result<Update, StepError>,
) -> Result<(), StepError> {
    let asked = Assignment::from_env()?;
    let base = asked.model()?;
    let update = step(&asked, &base)?;
    Ok(update.answer(&asked, &base)?.write()?)
}
