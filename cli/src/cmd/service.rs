//! A service in the foreground: its words are its settings.

use std::{ffi::OsString, process::ExitCode};

use service::{
    settings::Settings,
    telemetry::{self, LogFormat},
    words::Program,
};

use super::broker;

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
    Program::All.start(words, run)
}

/// Asks a service whether it is well. The words after its name are its settings, which tell where its state is.
fn try_ask(name: &str, words: &[OsString]) -> Option<ExitCode> {
    let program = Program::All;
    match name {
        "manager" => Some(program.ask::<manager::ManagerSettings>(words, |it| &it.state)),
        "coordinator" => {
            Some(program.ask::<coordinator::CoordinatorSettings>(words, |it| &it.state))
        }
        "model-server" => {
            Some(program.ask::<model_server::ModelServerSettings>(words, |it| &it.state))
        }
        "proplet" => Some(program.ask::<proplet::PropletSettings>(words, |it| &it.state)),
        _ => None,
    }
}

/// Logs of services that run beside a command go to stderr, as always.
pub(super) fn log_as_text() {
    telemetry::init(LogFormat::Text);
}
