//! A service in the foreground: its words are its settings.

use std::{ffi::OsString, process::ExitCode};

use service::{
    health,
    settings::{Environment, Resolved, Settings, SettingsError, StateArgs, resolve},
    telemetry::{self, LogFormat},
};

use super::broker;
use crate::view;

/// Runs a service if the words name one.
pub(super) fn try_run(words: &[OsString]) -> Option<ExitCode> {
    let (name, words) = match words {
        [help, name] if help == "help" => (name, &["--help".into()][..]),
        [verb, name, words @ ..] if verb == "health" => return try_ask(name.to_str()?, words),
        [name, words @ ..] => (name, words),
        [] => return None,
    };
    match name.to_str()? {
        "manager" => Some(start::<manager::ManagerSettings>(words, |settings| {
            telemetry::init(settings.log.log_format);
            service::run::run(|stop| manager::run(settings, stop))
        })),
        "coordinator" => Some(start::<coordinator::CoordinatorSettings>(words, |settings| {
            telemetry::init(settings.log.log_format);
            service::run::run(|stop| coordinator::run(settings, stop))
        })),
        "model-server" => Some(start::<model_server::ModelServerSettings>(words, |settings| {
            telemetry::init(settings.log.log_format);
            service::run::run(|stop| model_server::run(settings, stop))
        })),
        // `aileron proplet list` asks about proplets; everything else after the word is a setting.
        "proplet" if words.first().is_some_and(|verb| verb == "list" || verb == "show") => None,
        "proplet" => Some(start::<proplet::PropletSettings>(words, |settings| {
            telemetry::init(settings.log.log_format);
            service::run::run(|stop| proplet::run(settings, stop))
        })),
        "broker" => Some(start::<broker::BrokerSettings>(words, |settings| {
            telemetry::init(settings.log.log_format);
            service::run::run(|stop| broker::run(settings, stop))
        })),
        "registrar" => Some(start::<registrar::RegistrarSettings>(words, |settings| {
            telemetry::init(settings.log.log_format);
            service::run::run(|stop| registrar::run(settings, stop))
        })),
        _ => None,
    }
}

fn start<S: Settings>(words: &[OsString], run: impl FnOnce(S) -> ExitCode) -> ExitCode {
    match resolve::<S>(words, &Environment::of_process()) {
        Ok(Resolved::Run(settings)) => run(settings),
        Ok(Resolved::Print(text)) => {
            view::line(text.trim_end());
            ExitCode::SUCCESS
        }
        Err(why) => {
            view::aside(format!("error: {why}"));
            ExitCode::from(SettingsError::EXIT_CODE)
        }
    }
}

/// Asks a service whether it is well. The words after its name are its settings, which tell where its state is.
fn try_ask(name: &str, words: &[OsString]) -> Option<ExitCode> {
    match name {
        "manager" => Some(start::<manager::ManagerSettings>(words, |it| ask(&it.state))),
        "coordinator" => {
            Some(start::<coordinator::CoordinatorSettings>(words, |it| ask(&it.state)))
        }
        "model-server" => {
            Some(start::<model_server::ModelServerSettings>(words, |it| ask(&it.state)))
        }
        "proplet" => Some(start::<proplet::PropletSettings>(words, |it| ask(&it.state))),
        _ => None,
    }
}

fn ask(state: &StateArgs) -> ExitCode {
    match health::ask(&state.state_dir) {
        Ok(()) => {
            view::line("pass");
            ExitCode::SUCCESS
        }
        Err(why) => {
            view::aside(format!("fail: {}", service::run::chain(&why)));
            ExitCode::FAILURE
        }
    }
}

/// Logs of services that run beside a command go to stderr, as always.
pub(super) fn log_as_text() {
    telemetry::init(LogFormat::Text);
}
