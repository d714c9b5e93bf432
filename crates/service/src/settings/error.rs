//! What can be wrong with settings, in words that say which, where, and what would be right.

use std::{error::Error as _, fmt, io, path::PathBuf};

use clap::{
    Arg, Command,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{
    environment::variable,
    sources::{REDACTED, Sources, is_secret, settings, takes},
};

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Flag(String),
    Variable(String),
    Key { key: String, section: String, path: PathBuf },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Variable(name) => f.write_str(name),
            Self::Key { key, section, path } => {
                write!(f, "{key} in section [{section}] of {}", path.display())
            }
        }
    }
}

/// Why a service cannot start with what it was told. Every one of them ends the program with
/// [`SettingsError::EXIT_CODE`].
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("{place} is {value:?}: {why}; it takes: {takes}")]
    Value { place: Box<Place>, value: String, why: String, takes: String },
    #[error("{key} is {value:?}; it takes: {takes}")]
    Invalid { key: String, value: String, takes: String },
    #[error("{key} is not set; give --{flag}, {variable}, or {key} in section [{section}]")]
    Missing { key: String, flag: String, variable: String, section: String },
    #[error("unknown key {key:?} in section [{section}] of {path}{}", hint(.meant))]
    Key { path: PathBuf, section: String, key: String, meant: Option<String> },
    #[error("key {key:?} of {path} stands in no section; write it under [{service}]{}", hint(.meant))]
    Homeless { path: PathBuf, key: String, service: String, meant: Option<String> },
    #[error("unknown section [{section}] in {path}{}", hint(.meant))]
    Section { path: PathBuf, section: String, meant: Option<String> },
    #[error("{section:?} of {path} is a section, not a value")]
    NotASection { path: PathBuf, section: String },
    #[error("environment variable {variable} is not a setting of {service}{}", hint(.meant))]
    Variable { variable: String, service: String, meant: Option<String> },
    #[error("read settings file {path}: {source}")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("settings file {path} is not TOML: {source}")]
    Syntax {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    /// What clap has to say about the command line.
    #[error("{0}")]
    Usage(String),
}

fn hint(meant: &Option<String>) -> String {
    meant.as_ref().map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

impl SettingsError {
    /// What the process exits with.
    pub const EXIT_CODE: u8 = 64;

    /// `key` holds `value`, which is wrong in the light of other settings or of the world.
    pub fn invalid(key: &str, value: impl ToString, takes: impl ToString) -> Self {
        Self::Invalid { key: key.to_owned(), value: value.to_string(), takes: takes.to_string() }
    }

    /// Says in our words what clap found, naming the place where the value really came from.
    pub(super) fn from_clap(error: &clap::Error, command: &Command, sources: &Sources) -> Self {
        let usage = || Self::Usage(error.render().to_string().trim_end().to_owned());
        let said = if let ErrorKind::ValueValidation | ErrorKind::InvalidValue = error.kind() {
            wrong_value(error, command, sources)
        } else if error.kind() == ErrorKind::MissingRequiredArgument {
            missing(error, command)
        } else {
            None
        };
        said.unwrap_or_else(usage)
    }
}

fn wrong_value(error: &clap::Error, command: &Command, sources: &Sources) -> Option<SettingsError> {
    let arg = blamed(error, command)?;
    let id = arg.get_id().as_str();
    let ContextValue::String(value) = error.get(ContextKind::InvalidValue)? else { return None };
    let flag = || Place::Flag(arg.get_long().unwrap_or_default().to_owned());
    let why = error.source().map_or_else(
        || if value.is_empty() { "it needs a value" } else { "it is none of those" }.to_owned(),
        ToString::to_string,
    );
    Some(SettingsError::Value {
        place: Box::new(sources.places.get(id).cloned().unwrap_or_else(flag)),
        value: if is_secret(id) { REDACTED.to_owned() } else { value.clone() },
        why,
        takes: takes(arg),
    })
}

fn missing(error: &clap::Error, command: &Command) -> Option<SettingsError> {
    let arg = blamed(error, command)?;
    let key = arg.get_id().to_string();
    Some(SettingsError::Missing {
        flag: arg.get_long()?.to_owned(),
        variable: variable(command.get_name(), &key),
        section: command.get_name().to_owned(),
        key,
    })
}

/// The argument that clap speaks of.
fn blamed<'a>(error: &clap::Error, command: &'a Command) -> Option<&'a Arg> {
    let context = error.get(ContextKind::InvalidArg)?;
    let spoken = if let ContextValue::String(text) = context {
        text
    } else if let ContextValue::Strings(texts) = context {
        texts.first()?
    } else {
        return None;
    };
    let long = spoken.strip_prefix("--")?;
    let end = long.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(long.len());
    settings(command).find(|arg| arg.get_long() == Some(&long[..end]))
}
