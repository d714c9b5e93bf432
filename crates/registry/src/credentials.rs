//! With which name and password a registry is asked: from the settings, or from Docker's
//! configuration file. Neither is ever sent to another host than the one that it is for.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

use crate::{RegistryError, Settings};

/// Under what Docker keeps the credentials of its own registry.
const DOCKER_HUB: [&str; 2] = ["docker.io", "index.docker.io"];
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Credentials, and where they come from, for the eye.
pub(crate) struct Credentials {
    pub(crate) auth: RegistryAuth,
    pub(crate) told: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
struct DockerAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    registrytoken: Option<String>,
    identitytoken: Option<String>,
}

/// What is known for this host. It is read anew each time: passwords change while services run.
pub(crate) fn find(host: &str, settings: &Settings) -> Result<Credentials, RegistryError> {
    if let Some(login) = settings.login.as_ref().filter(|login| login.host == host) {
        let path = &login.password_file;
        let password = read(path).map_err(|source| file(path, source))?;
        let password = password.trim_end_matches(['\r', '\n']).to_owned();
        let told = format!("those of {} from {} were given", login.username, path.display());
        return Ok(Credentials {
            auth: RegistryAuth::Basic(login.username.clone(), password),
            told,
        });
    }
    let (path, is_asked_for) = match &settings.auth_file {
        Some(path) => (Some(path.clone()), true),
        None => (default_file(), false),
    };
    let Some(path) = path else { return Ok(none("there is no home directory to look for any in")) };
    match read(&path) {
        Ok(text) => in_docker_config(host, &path, &text),
        Err(why) if why.kind() == io::ErrorKind::NotFound && !is_asked_for => {
            Ok(none(&format!("none were given, and there is no {}", path.display())))
        }
        Err(source) => Err(file(&path, source)),
    }
}

fn in_docker_config(host: &str, path: &Path, text: &str) -> Result<Credentials, RegistryError> {
    let wrong = |what: String| RegistryError::AuthFile { path: path.to_owned(), what };
    // Neither the text nor what the parser quotes of it is shown: there are passwords in it.
    let config: DockerConfig = serde_json::from_str(text)
        .map_err(|why| wrong(format!("not as Docker writes it (line {})", why.line())))?;
    let key = config.auths.keys().find(|key| is_for(key, host));
    let found = key.and_then(|key| config.auths.get(key));
    if let Some(auth) = found.map(read_auth).transpose().map_err(wrong)?.flatten() {
        let told = format!("those from {} were given", path.display());
        return Ok(Credentials { auth, told });
    }
    let own = config.cred_helpers.iter().find(|(key, _)| is_for(key, host)).map(|(_, name)| name);
    // With a store, Docker leaves an empty entry to say that the store has them.
    let store = config.creds_store.as_ref().filter(|_| found.is_some());
    if let Some(helper) = own.or(store) {
        let (host, helper) = (host.to_owned(), helper.clone());
        return Err(RegistryError::Helper { path: path.to_owned(), host, helper });
    }
    Ok(none(&format!("none were given, and {} has none for {host}", path.display())))
}

fn read_auth(found: &DockerAuth) -> Result<Option<RegistryAuth>, String> {
    if let Some(token) = found.registrytoken.as_ref().filter(|token| !token.is_empty()) {
        return Ok(Some(RegistryAuth::Bearer(token.clone())));
    }
    if found.identitytoken.as_ref().is_some_and(|token| !token.is_empty()) {
        return Err("an identitytoken is not understood; log in with name and password".to_owned());
    }
    if let (Some(name), Some(password)) = (&found.username, &found.password) {
        return Ok(Some(RegistryAuth::Basic(name.clone(), password.clone())));
    }
    let Some(auth) = found.auth.as_ref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
    let decoded = STANDARD.decode(auth.trim()).ok().and_then(|it| String::from_utf8(it).ok());
    let decoded = decoded.ok_or("an entry `auth` is not base64 of text")?;
    let (name, password) = decoded.split_once(':').ok_or("an entry `auth` has no colon in it")?;
    // Some tools pad with NUL.
    let password = password.trim_end_matches('\0');
    Ok(Some(RegistryAuth::Basic(name.to_owned(), password.to_owned())))
}

/// Whether an entry's name means this host: Docker writes `host`, `https://host` or `https://host/v1/`.
fn is_for(key: &str, host: &str) -> bool {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let bare = bare.split('/').next().unwrap_or_default();
    bare == host || (DOCKER_HUB.contains(&bare) && DOCKER_HUB.contains(&host))
}

fn none(told: &str) -> Credentials {
    Credentials { auth: RegistryAuth::Anonymous, told: told.to_owned() }
}

fn default_file() -> Option<PathBuf> {
    let dir = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let dir = dir.or_else(|| env::home_dir().map(|home| home.join(".docker")));
    dir.map(|dir| dir.join("config.json"))
}

fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too long for what it should be"));
    }
    fs::read_to_string(path)
}

fn file(path: &Path, source: io::Error) -> RegistryError {
    RegistryError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(name: &str, password: &str) -> RegistryAuth {
        RegistryAuth::Basic(name.to_owned(), password.to_owned())
    }

    fn settings(dir: &Path, text: &str) -> Settings {
        let path = dir.join("config.json");
        fs::write(&path, text).unwrap();
        Settings { auth_file: Some(path), ..Settings::default() }
    }

    #[test]
    fn docker_s_file_is_understood_as_docker_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let auth = STANDARD.encode("ann:pass:word");
        let text = format!(
            r#"{{"auths": {{"https://r.example/v1/": {{"auth": "{auth}"}}, "r.example:5000": {{"username": "bob", "password": "secret"}},
            "https://index.docker.io/v1/": {{"auth": "{auth}"}}}}, "HttpHeaders": {{"a": "b"}}}}"#
        );
        let settings = settings(dir.path(), &text);
        let auth = |host| find(host, &settings).unwrap().auth;
        assert!(auth("r.example") == basic("ann", "pass:word"));
        assert!(auth("r.example:5000") == basic("bob", "secret"));
        assert!(auth("docker.io") == basic("ann", "pass:word"));
        for other in ["example", "r.example:5001", "r.example.evil", "evil/r.example"] {
            assert!(auth(other) == RegistryAuth::Anonymous, "{other}");
        }
    }

    #[test]
    fn a_helper_is_named_and_not_asked() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"auths": {"a.example": {}}, "credsStore": "desktop", "credHelpers": {"b.example": "ecr-login"}}"#;
        let settings = settings(dir.path(), text);
        for (host, helper) in [("a.example", "desktop"), ("b.example", "ecr-login")] {
            let why = find(host, &settings).err().unwrap().to_string();
            assert!(why.contains(host) && why.contains(helper), "{why}");
        }
        assert!(find("c.example", &settings).unwrap().auth == RegistryAuth::Anonymous);
    }

    #[test]
    fn settings_go_before_the_file_and_to_their_host_alone() {
        let dir = tempfile::tempdir().unwrap();
        let password_file = dir.path().join("password");
        fs::write(&password_file, "from settings\n").unwrap();
        let auth = STANDARD.encode("ann:from docker");
        let text = format!(r#"{{"auths": {{"r.example": {{"auth": "{auth}"}}}}}}"#);
        let (host, username) = ("r.example".to_owned(), "bob".to_owned());
        let login = Some(crate::settings::Login { host, username, password_file });
        let settings = Settings { login, ..settings(dir.path(), &text) };
        assert!(find("r.example", &settings).unwrap().auth == basic("bob", "from settings"));
        assert!(find("s.example", &settings).unwrap().auth == RegistryAuth::Anonymous);
    }

    #[test]
    fn what_is_wrong_with_the_file_is_said_without_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "secret",
            r#"{"auths": {"r.example": "secret"}}"#,
            r#"{"auths": {"r.example": {"auth": "secret?"}}}"#,
            r#"{"auths": {"r.example": {"auth": "c2VjcmV0"}}}"#,
            r#"{"auths": {"r.example": {"identitytoken": "secret"}}}"#,
        ] {
            let why = find("r.example", &settings(dir.path(), text)).err().unwrap().to_string();
            assert!(why.contains("config.json") && !why.contains("secret"), "{why}");
        }
        let gone = Settings { auth_file: Some(dir.path().join("gone")), ..Settings::default() };
        assert!(find("r.example", &gone).err().unwrap().to_string().contains("gone"));
    }
}
