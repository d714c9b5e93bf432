//! The environment as a source of settings.

use std::{collections::BTreeMap, env, ffi::OsString};

use clap::Command;

use super::{CONFIG, SettingsError, nearest::nearest, sources};

/// Environment variables, taken once; tests make their own.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// The variables of this process; names that are not UTF-8 are not ours.
    pub fn of_process() -> Self {
        Self(env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v))).collect())
    }

    /// The value of a variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&OsString> {
        self.0.get(name).filter(|value| !value.is_empty())
    }

    /// The settings of `service` by id; a variable of that service which is no setting is an
    /// error.
    pub(super) fn settings(
        &self,
        service: &str,
        command: &Command,
    ) -> Result<BTreeMap<String, OsString>, SettingsError> {
        let known: BTreeMap<String, &str> =
            sources::ids(command).chain([CONFIG]).map(|id| (variable(service, id), id)).collect();
        let prefix = variable(service, "");
        let mut settings = BTreeMap::new();
        for name in self.0.keys() {
            let Some(rest) = name.strip_prefix(&prefix) else { continue };
            match (known.get(name), self.get(name)) {
                (Some(&id), Some(value)) if id != CONFIG => {
                    settings.insert(id.to_owned(), value.clone());
                }
                (Some(_), _) => {}
                (None, _) if is_made_by_a_platform(rest) => {}
                (None, _) => {
                    let meant = nearest(name, known.keys().map(String::as_str));
                    return Err(SettingsError::Variable {
                        variable: name.clone(),
                        service: service.to_owned(),
                        meant: meant.map(str::to_owned),
                    });
                }
            }
        }
        Ok(settings)
    }
}

impl<K: Into<String>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }
}

/// `MANAGER_HTTP_PORT` for `manager` and `http_port`.
pub(super) fn variable(service: &str, id: &str) -> String {
    format!("{service}_{id}").replace('-', "_").to_ascii_uppercase()
}

/// Whether Kubernetes or a Docker link sets `{SERVICE}_{rest}` for a service of our name.
fn is_made_by_a_platform(rest: &str) -> bool {
    rest == "PORT"
        || rest == "SERVICE_HOST"
        || rest.starts_with("SERVICE_PORT")
        || rest
            .strip_prefix("PORT_")
            .is_some_and(|port| port.starts_with(|c: char| c.is_ascii_digit()))
}
