//! The commands, one file each. A service's words go to that service's own settings.

mod acl;
mod bench;
mod broker;
mod ca;
mod demo;
mod enroll;
mod kit;
mod model;
mod preflight;
mod proplet;
mod round;
mod service;
mod session;
mod sim;
mod task;
mod token;
mod up;
mod workload;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand, error::ErrorKind};

use crate::view::{self, Format};

/// Exit code of a command line that cannot be understood.
const EXIT_USAGE: u8 = 64;

/// Federated learning over MQTT: an edge fleet trains a shared model, and no raw data leaves a
/// device.
///
/// Without a command: the demo.
#[derive(Debug, Parser)]
#[command(
    name = "aileron",
    version,
    max_term_width = 100,
    after_help = "\
First steps:
  aileron demo                    train a real model on three proplets, here and now
  aileron up                      start a platform and keep it running
  aileron round start --watch     train one round on it, with every proplet that is alive
  aileron model list              see the models
  aileron workload new NAME       start on a training step of your own
  aileron sim run FILE            simulate a fleet with the very same code

Every service explains its settings: aileron manager --help"
)]
struct Aileron {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Train a model on proplets in this process, joined by nothing but MQTT
    Demo(demo::Demo),
    /// Start a whole platform in this process and keep it running
    Up(up::Up),
    /// Start and watch rounds
    #[command(subcommand)]
    Round(round::Round),
    /// Start, watch, stop and resume training sessions: many rounds
    #[command(subcommand)]
    Session(session::Sessions),
    /// Create, start and look at tasks
    #[command(subcommand)]
    Task(task::Task),
    /// Look at proplets; with settings or nothing after it: [service] run tasks on this device
    #[command(subcommand)]
    Proplet(proplet::Proplets),
    /// Look at models
    #[command(subcommand)]
    Model(model::Models),
    /// Make, build, check and try a training step of your own
    #[command(subcommand)]
    Workload(workload::Workload),
    /// Run scenarios under virtual time
    #[command(subcommand)]
    Sim(sim::Sim),
    /// Say who may connect to the broker as what, and call the manager for what
    #[command(subcommand)]
    Token(token::Tokens),
    /// Write the access rules of the broker's roles as another broker takes them
    #[command(subcommand)]
    Acl(acl::Acl),
    /// A small certificate authority for the platform's services and proplets
    #[command(subcommand)]
    Ca(ca::Ca),
    /// Join a platform: make this device's keys, and get its certificate and settings
    Enroll(enroll::Enroll),
    /// What devices start with, in signed files: make, verify and install them
    Kit(kit::Kits),
    /// Check whether this device can take part, before it does
    Preflight(preflight::Preflight),
    /// Measure what things cost on this machine
    #[command(subcommand)]
    Bench(bench::Bench),
    /// [service] Run tasks on proplets and forward their updates
    Manager,
    /// [service] Run rounds and aggregate updates
    Coordinator,
    /// [service] Keep and publish every version of the model
    ModelServer,
    /// [service] Embedded MQTT broker, for first runs and tests
    Broker,
    /// [service] Give devices that have a token for joining their certificate
    Registrar,
    /// Ask a service on this machine whether it is well; takes its name and settings
    Health,
}

/// Runs the words of a command line.
pub(crate) fn run(words: Vec<OsString>) -> ExitCode {
    if let Some(code) = service::try_run(&words) {
        return code;
    }
    let words = if words.is_empty() { vec!["demo".into()] } else { words };
    let verb = match Aileron::try_parse_from(std::iter::once("aileron".into()).chain(words)) {
        Ok(aileron) => aileron.verb,
        Err(error) => return usage(&error),
    };
    let format = verb.format();
    match perform(verb) {
        Ok(code) => code,
        Err(why) => {
            view::error(&why, format);
            ExitCode::FAILURE
        }
    }
}

fn perform(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Demo(demo) => demo.run(),
        Verb::Up(up) => up.run(),
        Verb::Round(round) => round.run(),
        Verb::Session(sessions) => sessions.run(),
        Verb::Task(task) => task.run(),
        Verb::Proplet(proplets) => proplets.run(),
        Verb::Model(models) => models.run(),
        Verb::Workload(workload) => workload.run(),
        Verb::Sim(sim) => sim.run(),
        Verb::Bench(bench) => bench.run(),
        Verb::Token(tokens) => tokens.run(),
        Verb::Acl(acl) => acl.run(),
        Verb::Ca(ca) => ca.run(),
        Verb::Enroll(enroll) => enroll.run(),
        Verb::Kit(kits) => kits.run(),
        Verb::Preflight(preflight) => preflight.run(),
        Verb::Manager | Verb::Coordinator | Verb::ModelServer | Verb::Broker | Verb::Registrar => {
            anyhow::bail!("a service's name comes first on the command line")
        }
        Verb::Health => {
            anyhow::bail!("health takes manager, coordinator, model-server or proplet")
        }
    }
}

impl Verb {
    const fn format(&self) -> Format {
        match self {
            Self::Round(round) => round.format(),
            Self::Session(sessions) => sessions.format(),
            Self::Task(task) => task.format(),
            Self::Proplet(proplets) => proplets.format(),
            Self::Model(models) => models.format(),
            Self::Bench(bench) => bench.format(),
            Self::Sim(sim) => sim.format(),
            Self::Workload(workload) => workload.format(),
            Self::Token(tokens) => tokens.format(),
            Self::Acl(_)
            | Self::Ca(_)
            | Self::Enroll(_)
            | Self::Kit(_)
            | Self::Preflight(_)
            | Self::Demo(_)
            | Self::Up(_)
            | Self::Manager
            | Self::Coordinator
            | Self::ModelServer
            | Self::Broker
            | Self::Registrar
            | Self::Health => Format::Text,
        }
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    match error.print() {
        Ok(()) if asked_for => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(EXIT_USAGE),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Runs a future on a small runtime until it ends, or until Ctrl-C or SIGTERM.
fn on_runtime<T>(
    work: impl AsyncFnOnce(tokio_util::sync::CancellationToken) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async { work(::service::run::watch_signals()).await });
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}
