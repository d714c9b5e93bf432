//! A device's directory: its settings and the files that they name, as enrolment and start-up kits
//! leave them. With nothing else, `aileron proplet --config DIR/proplet.toml` runs.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use access::Welcome;
use anyhow::{Context as _, bail};

pub(crate) const SETTINGS_FILE: &str = "proplet.toml";
pub(crate) const CA_FILE: &str = "ca.pem";
pub(crate) const CERTIFICATE_FILE: &str = "proplet.pem";
pub(crate) const KEY_FILE: &str = "proplet.key";
pub(crate) const SIGNING_KEY_FILE: &str = "proplet.sign";

/// What a device's directory must not hold before.
const OWN_FILES: [&str; 5] = [SETTINGS_FILE, CA_FILE, CERTIFICATE_FILE, KEY_FILE, SIGNING_KEY_FILE];

/// A directory that is being filled; what was written goes away again unless it is finished.
#[derive(Debug)]
pub(crate) struct DeviceDir {
    dir: PathBuf,
    written: Vec<PathBuf>,
}

impl DeviceDir {
    /// A new directory, or one that holds no device yet.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        for name in OWN_FILES {
            let path = dir.join(name);
            if path.exists() {
                bail!("{} is there already: this directory is a device's", path.display());
            }
        }
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.with_context(|| format!("make {}", dir.display()))?;
        Ok(Self { dir: dir.to_owned(), written: vec![] })
    }

    /// Writes a file that is not there yet, for its owner alone, to the disk.
    pub(crate) fn write(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.dir.join(name);
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = made.and_then(|mut file| {
            self.written.push(path.clone());
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.with_context(|| format!("write {}", path.display()))
    }

    /// Keeps what was written, also if the power fails now; the path of the settings.
    pub(crate) fn finish(mut self) -> anyhow::Result<PathBuf> {
        self.written.clear();
        let flushed = fs::File::open(&self.dir).and_then(|dir| dir.sync_all());
        flushed.with_context(|| format!("flush {}, which is whole", self.dir.display()))?;
        Ok(self.dir.join(SETTINGS_FILE))
    }
}

impl Drop for DeviceDir {
    fn drop(&mut self) {
        for path in &self.written {
            // It stays behind where the disk does not even delete.
            let _ = fs::remove_file(path);
        }
    }
}

/// The settings of a device that was let in; its data are where `data_dir` says, if it does.
pub(crate) fn settings(welcome: &Welcome, data_dir: Option<&Path>) -> String {
    let here = |file: &str| format!("{{here}}/{file}");
    let data = data_dir.map(|dir| std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()));
    let prefix = (!welcome.topic_prefix.is_empty()).then(|| welcome.topic_prefix.clone());
    let lines = [
        ("id", Some(welcome.name.clone())),
        ("mqtt_address", Some(welcome.mqtt_address.clone())),
        ("mqtt_server_name", welcome.mqtt_server_name.clone()),
        ("mqtt_ca_file", Some(here(CA_FILE))),
        ("mqtt_cert_file", Some(here(CERTIFICATE_FILE))),
        ("mqtt_key_file", Some(here(KEY_FILE))),
        ("signing_key_file", Some(here(SIGNING_KEY_FILE))),
        ("domain_id", Some(welcome.domain_id.clone())),
        ("channel_id", Some(welcome.channel_id.clone())),
        ("topic_prefix", prefix),
        ("state_dir", Some(here("state"))),
        ("data_dir", data.map(|dir| dir.display().to_string())),
    ];
    let mut text =
        "# The settings of one device; {here} is this file's directory. The keys beside \
                    it are its own.\n[proplet]\n"
            .to_owned();
    for (key, value) in lines {
        if let Some(value) = value {
            text += &format!("{key} = {}\n", toml::Value::String(value));
        }
    }
    text
}
