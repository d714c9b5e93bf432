//! The TOML file as a source of settings.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use clap::Command;

use super::{SECTIONS, SettingsError, nearest::nearest, sources};

/// Stands in a file for the directory where it lies, so that a device's settings can be moved.
const HERE: &str = "{here}";

/// One service's section.
#[derive(Debug, Default)]
pub(super) struct Section {
    pub path: Option<PathBuf>,
    pub keys: BTreeMap<String, toml::Value>,
}

/// Reads the section of `service`; whatever the file holds that is not known is an error.
pub(super) fn read(
    path: &Path,
    service: &str,
    command: &Command,
) -> Result<Section, SettingsError> {
    let text = fs::read_to_string(path)
        .map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
    let table: toml::Table = text.parse().map_err(|source| SettingsError::Syntax {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    let mut keys = BTreeMap::new();
    for (name, value) in table {
        if !SECTIONS.contains(&name.as_str()) {
            return Err(stranger(path, service, command, name, &value));
        }
        let toml::Value::Table(section) = value else {
            return Err(SettingsError::NotASection { path: path.to_owned(), section: name });
        };
        if name == service {
            let here = here(path);
            keys = section.into_iter().map(|(key, value)| (key, placed(value, &here))).collect();
        }
    }
    if let Some(key) = keys.keys().find(|key| sources::ids(command).all(|id| id != *key)) {
        return Err(SettingsError::Key {
            path: path.to_owned(),
            section: service.to_owned(),
            key: key.clone(),
            meant: nearest(key, sources::ids(command)).map(str::to_owned),
        });
    }
    Ok(Section { path: Some(path.to_owned()), keys })
}

fn here(path: &Path) -> String {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    whole.parent().unwrap_or(Path::new("/")).display().to_string()
}

/// A value with `{here}` filled in.
fn placed(value: toml::Value, here: &str) -> toml::Value {
    match value {
        toml::Value::String(text) => match text.strip_prefix(HERE) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                toml::Value::String(format!("{here}{rest}"))
            }
            Some(_) | None => toml::Value::String(text),
        },
        toml::Value::Array(values) => {
            values.into_iter().map(|value| placed(value, here)).collect::<Vec<_>>().into()
        }
        other @ (toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_)
        | toml::Value::Table(_)) => other,
    }
}

fn stranger(
    path: &Path,
    service: &str,
    command: &Command,
    name: String,
    value: &toml::Value,
) -> SettingsError {
    if value.is_table() {
        let meant = nearest(&name, SECTIONS.iter().copied()).map(str::to_owned);
        return SettingsError::Section { path: path.to_owned(), section: name, meant };
    }
    let meant = nearest(&name, sources::ids(command)).map(str::to_owned);
    SettingsError::Homeless { path: path.to_owned(), key: name, service: service.to_owned(), meant }
}

/// A scalar as a flag would take it.
pub(super) fn text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        toml::Value::Datetime(at) => Some(at.to_string()),
        toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}
