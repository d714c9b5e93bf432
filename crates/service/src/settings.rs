//! Settings of a service: flags, then environment, then a TOML file, then defaults.
//!
//! A service's settings are one `clap::Args` struct. The id of an argument is its name everywhere:
//! `http_port` of the manager is `--http-port`, `MANAGER_HTTP_PORT`, and `http_port` in the
//! section `[manager]` of the file. A file may serve several services, one section each; it has no
//! keys outside of sections.
//!
//! - Fields need no `#[arg(long)]`: every argument becomes a long flag.
//! - A `bool` takes `--flag`, `--flag=false`, and true/false, yes/no, on/off, 1/0 elsewhere.
//! - A list (`Vec`) takes the flag repeatedly, commas in a flag or variable, an array in the file.
//! - In a file, a text that begins with `{here}` stands for a path: that of the file's directory.
//! - An empty environment variable counts as not set.
//! - A variable with the service's prefix that is no setting is an error, except for those that
//!   container platforms make for a service of that name (`MANAGER_PORT...`, `MANAGER_SERVICE_...`).

mod address;
mod environment;
mod error;
mod file;
mod groups;
mod limits;
mod nearest;
mod print;
mod sources;

use std::{ffi::OsString, path::PathBuf};

use clap::{
    Arg, ArgAction, ArgMatches, Command, builder::BoolishValueParser, error::ErrorKind,
    parser::ValueSource,
};

pub use address::{MqttAddress, MqttAddressError, Scheme};
pub use environment::Environment;
pub use error::{Place, SettingsError};
pub use groups::{MqttArgs, Secret, StateArgs};
pub use limits::{Limits, PayloadLimit, PayloadLimitError};

use sources::Sources;

/// Sections that a settings file may have; one a service.
pub const SECTIONS: &[&str] =
    &["broker", "coordinator", "manager", "model-server", "proplet", "registrar"];

const CONFIG: &str = "config";
const PRINT_CONFIG: &str = "print_config";

/// What one service can be told.
pub trait Settings: clap::Args {
    /// The service's name on the command line and in the file; one of [`SECTIONS`].
    const SERVICE: &'static str;
    /// What the service is for, in one line.
    const ABOUT: &'static str;

    /// Checks what concerns several settings at once; make the error with
    /// [`SettingsError::invalid`].
    fn check(&self) -> Result<(), SettingsError> {
        Ok(())
    }
}

/// What the words of the command line ask for.
#[derive(Debug)]
pub enum Resolved<S> {
    /// Run the service with these settings.
    Run(S),
    /// Print this to stdout and exit with 0: `--help` or `--print-config`.
    Print(String),
}

/// The subcommand of a service, for the program's `--help`. The words after it are not for this
/// command to parse, but for [`resolve`].
pub fn command<S: Settings>() -> Command {
    describe::<S>().mut_args(|arg| {
        let id = arg.get_id().as_str();
        if id == PRINT_CONFIG {
            return arg;
        }
        let variable = environment::variable(S::SERVICE, id);
        arg.env(variable).hide_env_values(true)
    })
}

/// Reads the settings of `S` from the words after its name, the environment, and the file that
/// `--config` or `{SERVICE}_CONFIG` names.
pub fn resolve<S: Settings>(
    words: &[OsString],
    environment: &Environment,
) -> Result<Resolved<S>, SettingsError> {
    let optional = describe::<S>().mut_args(|arg| arg.required(false));
    let flags = match optional.clone().no_binary_name(true).try_get_matches_from(words) {
        Ok(flags) => flags,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            return Ok(Resolved::Print(help::<S>(words)));
        }
        Err(error) => return Err(SettingsError::from_clap(&error, &optional, &Sources::default())),
    };
    let described = describe::<S>();
    let file = match config_path::<S>(&flags, environment) {
        Some(path) => file::read(&path, S::SERVICE, &described)?,
        None => file::Section::default(),
    };
    let variables = environment.settings(S::SERVICE, &described)?;
    let sources = Sources::gather(&described, &given(&flags), variables, file)?;
    let all = sources.words.iter().chain(words);
    let mut matches = described
        .clone()
        .no_binary_name(true)
        .try_get_matches_from(all)
        .map_err(|error| SettingsError::from_clap(&error, &described, &sources))?;
    let printed =
        matches.get_flag(PRINT_CONFIG).then(|| print::effective(&described, &matches, &sources));
    let settings = S::from_arg_matches_mut(&mut matches)
        .map_err(|error| SettingsError::from_clap(&error, &described, &sources))?;
    settings.check()?;
    Ok(printed.map_or(Resolved::Run(settings), Resolved::Print))
}

/// The arguments of a service, not reading the environment.
fn describe<S: Settings>() -> Command {
    S::augment_args(Command::new(S::SERVICE))
        .bin_name(format!("aileron {}", S::SERVICE))
        // Flattened groups bring their own description along.
        .about(S::ABOUT)
        .long_about(None::<&str>)
        .disable_version_flag(true)
        .mut_args(|arg| complete(arg, S::SERVICE))
        .arg(
            Arg::new(CONFIG)
                .long(CONFIG)
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help(format!("Settings file in TOML, with a section [{}]", S::SERVICE)),
        )
        .arg(
            Arg::new(PRINT_CONFIG)
                .long("print-config")
                .action(ArgAction::SetTrue)
                .help("Print the effective settings as TOML, say where each came from, and exit"),
        )
}

/// Gives an argument what every setting has, so that services need not repeat it.
fn complete(arg: Arg, service: &str) -> Arg {
    let id = arg.get_id().to_string();
    let arg = match arg.get_long() {
        Some(_) => arg,
        None => arg.long(id.replace('_', "-")),
    };
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let is_list = matches!(arg.get_action(), ArgAction::Append);
    let arg = if is_switch {
        arg.action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .value_parser(BoolishValueParser::new())
    } else if is_list && arg.get_value_delimiter().is_none() {
        arg.value_delimiter(',')
    } else {
        arg
    };
    if id == "state_dir" && arg.get_default_values().is_empty() {
        return arg.required(false).default_value(format!(".aileron/{service}"));
    }
    arg
}

fn help<S: Settings>(words: &[OsString]) -> String {
    match command::<S>().no_binary_name(true).try_get_matches_from(words) {
        Ok(_) => command::<S>().render_help().to_string(),
        Err(error) => error.render().to_string(),
    }
}

fn config_path<S: Settings>(flags: &ArgMatches, environment: &Environment) -> Option<PathBuf> {
    flags.get_one::<PathBuf>(CONFIG).cloned().or_else(|| {
        environment.get(&environment::variable(S::SERVICE, CONFIG)).map(|path| path.into())
    })
}

/// The ids that the command line has set.
fn given(flags: &ArgMatches) -> Vec<String> {
    flags
        .ids()
        .map(|id| id.as_str().to_owned())
        .filter(|id| {
            // Groups have ids, too, and no source.
            flags.try_get_raw(id).is_ok()
                && flags.value_source(id) == Some(ValueSource::CommandLine)
        })
        .collect()
}
