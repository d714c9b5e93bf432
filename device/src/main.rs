//! `aileron-proplet`: the proplet alone, for devices on which every megabyte counts. It is the service that
//! `aileron proplet` is, and takes its settings.

use std::{ffi::OsString, process::ExitCode};

use proplet::PropletSettings;
use service::{
    telemetry,
    words::{self, Program},
};

const NAME: &str = "aileron-proplet";

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let program = Program::Alone(NAME);
    match words.first().and_then(|word| word.to_str()) {
        Some("--version" | "-V") => words::say(format!("{NAME} {}", env!("CARGO_PKG_VERSION"))),
        Some("health") => program.ask::<PropletSettings>(&words[1..], |it| &it.state),
        Some(_) | None => program.start::<PropletSettings>(&words, |settings| {
            telemetry::init(settings.log.log_format);
            service::run::run(|stop| proplet::run(settings, stop))
        }),
    }
}
