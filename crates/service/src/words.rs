//! What a service's program does with the words of its command line: run, say its settings, or ask how it is.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
};

use crate::{
    health, run,
    settings::{Environment, Resolved, Settings, SettingsError, StateArgs, resolve},
};

/// The program that the words were given to.
#[derive(Clone, Copy, Debug)]
pub enum Program {
    /// `aileron`, of which a service is the first word.
    All,
    /// A program of this name, with one service in it.
    Alone(&'static str),
}

impl Program {
    /// Runs a service with the settings in `words`, or says what they ask for.
    pub fn start<S: Settings>(
        self,
        words: &[OsString],
        run: impl FnOnce(S) -> ExitCode,
    ) -> ExitCode {
        match resolve::<S>(words, &Environment::of_process()) {
            Ok(Resolved::Run(settings)) => run(settings),
            Ok(Resolved::Print(text)) => say(match self {
                Self::All => text,
                Self::Alone(name) => text.replace(&format!("aileron {}", S::SERVICE), name),
            }),
            Err(why) => {
                complain(format!("error: {why}"));
                ExitCode::from(SettingsError::EXIT_CODE)
            }
        }
    }

    /// Asks a service whether it is well. The words are its settings, which tell where its state is.
    pub fn ask<S: Settings>(
        self,
        words: &[OsString],
        state: impl FnOnce(&S) -> &StateArgs,
    ) -> ExitCode {
        self.start::<S>(words, |settings| match health::ask(&state(&settings).state_dir) {
            Ok(()) => say("pass"),
            Err(why) => {
                complain(format!("fail: {}", run::chain(&why)));
                ExitCode::FAILURE
            }
        })
    }
}

/// Says this on stdout, if there is somebody to hear it.
pub fn say(text: impl AsRef<str>) -> ExitCode {
    match writeln!(io::stdout().lock(), "{}", text.as_ref().trim_end()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(line: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", line.as_ref());
}
