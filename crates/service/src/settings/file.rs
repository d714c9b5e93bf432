//! The TOML file as a source of settings.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use clap::Command;

use super::{SECTIONS, SettingsError, nearest::nearest, sources};

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
            keys = section.into_iter().collect();
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
