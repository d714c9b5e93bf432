//! Where each setting comes from, and the words that stand for what the command line did not say.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

use clap::{Arg, ArgAction, Command};

use super::{
    CONFIG, PRINT_CONFIG, Place, SettingsError,
    environment::variable,
    file::{Section, text},
};

/// What environment and file say, as words of a command line.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub words: Vec<OsString>,
    /// By id; what is missing here comes from a flag or is a default.
    pub places: BTreeMap<String, Place>,
}

/// The ids of the service's own settings.
pub(super) fn ids(command: &Command) -> impl Iterator<Item = &str> {
    settings(command).map(|arg| arg.get_id().as_str())
}

/// The service's own settings.
pub(super) fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| {
        let id = arg.get_id().as_str();
        id != CONFIG && id != PRINT_CONFIG && id != "help"
    })
}

impl Sources {
    pub(super) fn gather(
        command: &Command,
        given: &[String],
        mut variables: BTreeMap<String, OsString>,
        file: Section,
    ) -> Result<Self, SettingsError> {
        let service = command.get_name();
        let Section { path, mut keys } = file;
        let mut sources = Self::default();
        for arg in settings(command) {
            let id = arg.get_id().as_str();
            let (variable_value, key_value) = (variables.remove(id), keys.remove(id));
            if given.iter().any(|flag| flag == id) {
                continue;
            }
            if let Some(value) = variable_value {
                sources.say(arg, [value], Place::Variable(variable(service, id)));
            } else if let Some(value) = key_value {
                let place = key_place(&path, service, id);
                let texts = texts(arg, &value, &place)?;
                sources.say(arg, texts.into_iter().map(OsString::from), place);
            }
        }
        Ok(sources)
    }

    fn say(&mut self, arg: &Arg, values: impl IntoIterator<Item = OsString>, place: Place) {
        let long = arg.get_long().expect("every setting has a long flag");
        for value in values {
            let mut word = OsString::from(format!("--{long}="));
            word.push(value);
            self.words.push(word);
        }
        self.places.insert(arg.get_id().to_string(), place);
    }
}

fn key_place(path: &Option<PathBuf>, service: &str, id: &str) -> Place {
    Place::Key {
        key: id.to_owned(),
        section: service.to_owned(),
        path: path.clone().unwrap_or_default(),
    }
}

/// A value of the file as the texts that a flag would take.
fn texts(arg: &Arg, value: &toml::Value, place: &Place) -> Result<Vec<String>, SettingsError> {
    let wrong = |why: &str| SettingsError::Value {
        place: Box::new(place.clone()),
        value: if is_secret(arg.get_id().as_str()) { REDACTED.into() } else { value.to_string() },
        why: why.to_owned(),
        takes: takes(arg),
    };
    let items = match value.as_array() {
        Some(items) if is_list(arg) => items.as_slice(),
        Some(_) => return Err(wrong("it is not a list")),
        None => std::slice::from_ref(value),
    };
    let mut texts = Vec::with_capacity(items.len());
    for item in items {
        let text = text(item).ok_or_else(|| wrong("it is not a table or a list of lists"))?;
        if items.len() > 1 && arg.get_value_delimiter().is_some_and(|d| text.contains(d)) {
            return Err(wrong("a value in a list must not contain a comma"));
        }
        texts.push(text);
    }
    Ok(texts)
}

fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// Stands for a value that nobody should read.
pub(super) const REDACTED: &str = "***";

/// Whether the value of this setting must not be shown.
pub(super) fn is_secret(id: &str) -> bool {
    ["password", "client_key", "token", "secret"].iter().any(|end| id.ends_with(end))
}

/// What a setting takes, in words.
pub(super) fn takes(arg: &Arg) -> String {
    let possible = arg.get_possible_values();
    let is_bool = possible.iter().any(|value| value.matches("true", true));
    if is_bool {
        return "true or false".to_owned();
    }
    if !possible.is_empty() {
        let names: Vec<&str> =
            possible.iter().map(clap::builder::PossibleValue::get_name).collect();
        return format!("one of {}", names.join(", "));
    }
    match arg.get_help() {
        Some(help) => help.to_string(),
        None => format!("a value for {}", arg.get_id()),
    }
}
