//! The proplet's settings: what the owner of the device decides.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use access::{ModuleSigners, SigningKey};
use http_api::VitalsArgs;
use protocol::{Digest, PropletId};
use registry::{Cache, RegistryArgs};
use serde_json::json;
use service::{
    settings::{Limits, MqttArgs, Settings, SettingsError, StateArgs},
    telemetry::LogArgs,
};

use crate::{
    executor, fetch,
    storage::{Storage, StorageError},
};

/// Where models and updates lie that go in pieces, in the state directory.
const BLOBS: &str = "blobs";

/// Every sign of life names every task that is held; the manager takes 256 KiB of that.
const TASKS_QUEUED_MAX: i64 = 1000;

/// Which modules run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ModulePolicy {
    /// All.
    #[default]
    Off,
    /// Signed ones, and the built-in client.
    Signed,
}

/// Where modules of images come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ImagePull {
    /// From registries.
    #[default]
    On,
    /// From the manager, by MQTT.
    Off,
}

/// The settings of one proplet.
#[derive(Clone, Debug, clap::Args)]
pub struct PropletSettings {
    #[command(flatten)]
    pub mqtt: MqttArgs,
    #[command(flatten)]
    pub state: StateArgs,
    #[command(flatten)]
    pub log: LogArgs,
    #[command(flatten)]
    pub vitals: VitalsArgs,
    /// Name of this proplet: 1 to 128 of A-Z a-z 0-9 . _ -; made once and kept if not set
    #[arg(long, value_name = "ID")]
    pub id: Option<PropletId>,
    /// Key with which updates are signed, from `aileron token new --signing-key`
    #[arg(long, value_name = "FILE")]
    pub signing_key_file: Option<PathBuf>,
    /// Directory with this device's data, which guests see read-only
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Directory from which programs may be read by path; without it, from none
    #[arg(long, value_name = "DIR")]
    pub module_dir: Option<PathBuf>,
    /// Directory for programs from registries and pinned ones from the network, which proplets of one
    /// machine may share; modules in the state directory if not set
    #[arg(long, value_name = "DIR")]
    pub module_cache_dir: Option<PathBuf>,
    /// Disk for these programs, in bytes, at least module_bytes_max; what was not used for longest goes
    /// first
    #[arg(long, value_name = "BYTES", default_value = "1073741824")]
    pub module_cache_bytes_max: u64,
    /// Which modules run: all, or only those signed by a key in module_signers_file
    #[arg(long, value_enum, default_value_t = ModulePolicy::Off)]
    pub module_policy: ModulePolicy,
    /// Public keys of those whose modules run: ed25519 in base64, one a line, or cosign's in PEM
    #[arg(long, value_name = "FILE")]
    pub module_signers_file: Option<PathBuf>,
    /// Whether modules of images are pulled from registries, or come through the manager
    #[arg(long, value_enum, default_value_t = ImagePull::On)]
    pub image_pull: ImagePull,
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// Directory of programs compiled ahead of time, which are trusted; without it, none is
    #[arg(long, value_name = "DIR")]
    pub precompiled_dir: Option<PathBuf>,
    /// SHA-256 of compiled programs that may come with a task, and are trusted; none if not set
    #[arg(long, value_name = "SHA256")]
    pub precompiled_allow: Vec<Digest>,
    /// Tasks that run at once, 1 to 256
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// Tasks that wait for their turn, 0 to 1000; one more is refused
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u16).range(0..=TASKS_QUEUED_MAX))]
    pub tasks_queued_max: u16,
    /// Memory of one guest, in bytes, at least 65536
    #[arg(long, value_name = "BYTES", default_value = "268435456", value_parser = clap::value_parser!(u64).range(65_536..))]
    pub memory_bytes_max: u64,
    /// Seconds that one guest may run, 1 to 2592000; daemons may run for ever
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = clap::value_parser!(u64).range(1..=2_592_000))]
    pub wall_s_max: u64,
    /// Instructions, roughly, that one guest may run, at least 1; not counted if not set
    #[arg(long, value_name = "UNITS", value_parser = clap::value_parser!(u64).range(1..))]
    pub fuel_max: Option<u64>,
    /// Bytes that one guest may print, at least 1
    #[arg(long, value_name = "BYTES", default_value = "16777216", value_parser = clap::value_parser!(u64).range(1..=1_073_741_824))]
    pub output_bytes_max: u64,
    /// Bytes that one guest may write to files, at least 1
    #[arg(long, value_name = "BYTES", default_value = "1073741824", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub update_bytes_max: u64,
    /// Bytes that a guest may leave for the next of its kind, in rounds that need it; 0 for none
    #[arg(long, value_name = "BYTES", default_value = "16777216", value_parser = clap::value_parser!(u64).range(0..=268_435_456))]
    pub state_bytes_max: u64,
    /// Bytes of output that are sent as the result of a task that is not federated, at least 1
    #[arg(long, value_name = "BYTES", default_value = "1048576", value_parser = clap::value_parser!(u64).range(1..=67_108_864))]
    pub result_bytes_max: u64,
    /// Bytes of the largest program, at least 1
    #[arg(long, value_name = "BYTES", default_value = "67108864", value_parser = clap::value_parser!(u64).range(1..=1_073_741_824))]
    pub module_bytes_max: u64,
    /// Directory for compiled programs, which proplets of one user on one machine may share; below the state directory if not set
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Bytes of compiled programs kept on disk
    #[arg(long, value_name = "BYTES", default_value = "268435456")]
    pub cache_bytes_max: u64,
    /// Disk for models and updates that go in pieces, in bytes; what is not in use goes first
    #[arg(long, value_name = "BYTES", default_value = "4294967296")]
    pub blob_bytes_max: u64,
    /// Seconds between signs of life, 1 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub alive_interval_s: u64,
    /// Seconds between reports on CPU and memory while tasks run, 0 to 86400; 0 for none
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub metrics_interval_s: u64,
    /// Seconds that a task waits for its base model, or the next piece of it, 1 to 86400
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub model_wait_s: u64,
}

impl Settings for PropletSettings {
    const SERVICE: &'static str = "proplet";
    const ABOUT: &'static str = "Runs tasks on this device and trains on its data";

    fn check(&self) -> Result<(), SettingsError> {
        for (key, dir) in [
            ("data_dir", &self.data_dir),
            ("module_dir", &self.module_dir),
            ("precompiled_dir", &self.precompiled_dir),
        ] {
            let Some(dir) = dir else { continue };
            readable(dir).map_err(|why| {
                let takes = format!("a directory that can be read ({why})");
                SettingsError::invalid(key, dir.display(), takes)
            })?;
        }
        if let Some(dir) = &self.cache_dir {
            shareable(dir)
                .map_err(|why| SettingsError::invalid("cache_dir", dir.display(), why))?;
        }
        self.signers()?;
        let (kept, largest) = (self.module_cache_bytes_max, self.module_bytes_max);
        if kept < largest {
            let takes = format!(
                "at least module_bytes_max ({largest}), since what is pulled is kept to be run"
            );
            return Err(SettingsError::invalid("module_cache_bytes_max", kept, takes));
        }
        if let Some(dir) = &self.precompiled_dir
            && executor::writable_by_others(dir).unwrap_or(true)
        {
            let takes = "a directory that only its owner may write to (chmod go-w), since what lies in it is trusted";
            return Err(SettingsError::invalid("precompiled_dir", dir.display(), takes));
        }
        self.vitals.check()?;
        self.signing_key().map(drop)
    }
}

/// Whether `dir` is a directory whose entries can be listed.
pub(crate) fn readable(dir: &Path) -> io::Result<()> {
    fs::read_dir(dir).map(drop)
}

/// Whether what lies in `dir` can be executed without fear: nobody else can have put it there. It
/// is made if it is not there.
fn shareable(dir: &Path) -> Result<(), String> {
    const TAKES: &str = "a directory of this user's own, which nobody else may write to";
    let unusable = |why: io::Error| format!("{TAKES} ({why})");
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).map_err(unusable)?;
    let meta = fs::metadata(dir).map_err(unusable)?;
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(format!("{TAKES}; it belongs to user {}", meta.uid()));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(format!("{TAKES}; its mode is {:o}", meta.mode() & 0o7777));
    }
    Ok(())
}

impl PropletSettings {
    /// With what updates are signed, if they are.
    pub(crate) fn signing_key(&self) -> Result<Option<SigningKey>, SettingsError> {
        let Some(path) = &self.signing_key_file else { return Ok(None) };
        let key = SigningKey::load(path).map_err(|why| {
            let takes = format!("a key as `aileron token new --signing-key` writes it ({why})");
            SettingsError::invalid("signing_key_file", path.display(), takes)
        })?;
        Ok(Some(key))
    }

    /// Whose modules may run; nothing if anybody's.
    pub(crate) fn signers(&self) -> Result<Option<ModuleSigners>, SettingsError> {
        let wrong = |value: String, takes: String| {
            Err(SettingsError::invalid("module_signers_file", value, takes))
        };
        match (self.module_policy, &self.module_signers_file) {
            (ModulePolicy::Off, None) => Ok(None),
            // What is set without an effect was meant to have one.
            (ModulePolicy::Off, Some(path)) => {
                wrong(path.display().to_string(), "nothing while module_policy is off".to_owned())
            }
            (ModulePolicy::Signed, None) => {
                let takes = "a file of public keys, since module_policy is signed";
                wrong(String::new(), takes.to_owned())
            }
            (ModulePolicy::Signed, Some(path)) => match ModuleSigners::load(path) {
                Ok(signers) => Ok(Some(signers)),
                Err(why) => {
                    let takes = format!("a file of public keys, one a line or in PEM ({why})");
                    wrong(path.display().to_string(), takes)
                }
            },
        }
    }

    /// The core's settings.
    pub(crate) fn agent(&self, proplet: &PropletId, limits: &Limits) -> agent::Config {
        let output = size(self.output_bytes_max);
        let defaults = agent::Config::new(proplet.clone());
        let metadata = [
            ("arch", json!(std::env::consts::ARCH)),
            ("os", json!(std::env::consts::OS)),
            ("version", json!(env!("CARGO_PKG_VERSION"))),
            ("executors", executor::EXECUTORS.iter().map(|entry| entry.name).collect()),
            ("compiler", json!(cfg!(feature = "compiler"))),
            ("data", json!(self.data_dir.is_some())),
            ("module_pieces", json!(true)),
            ("image_pull", json!(self.image_pull == ImagePull::On)),
            (
                "limits",
                json!({
                    "concurrency": self.concurrency,
                    "memory_bytes": self.memory_bytes_max,
                    "wall_s": self.wall_s_max,
                    "fuel": self.fuel_max,
                    "output_bytes": self.output_bytes_max,
                    "update_bytes": self.update_bytes_max,
                    "state_bytes": self.state_bytes_max,
                    "module_bytes": self.module_bytes_max,
                }),
            ),
        ];
        let seconds = Duration::from_secs;
        agent::Config {
            metadata: metadata.map(|(key, value)| (key.to_owned(), value)).into(),
            alive_every: seconds(self.alive_interval_s),
            metrics_every: (self.metrics_interval_s > 0).then(|| seconds(self.metrics_interval_s)),
            model_wait: seconds(self.model_wait_s),
            concurrency: self.concurrency.into(),
            tasks_queued_max: self.tasks_queued_max.into(),
            result_bytes_max: size(self.result_bytes_max),
            module_bytes_max: self.module_bytes_max,
            state_bytes_max: size(self.state_bytes_max),
            message_bytes_max: limits.message_bytes_max,
            base_digest: match self.signing_key_file {
                Some(_) => agent::BaseDigest::Said,
                None => agent::BaseDigest::Unsaid,
            },
            updates_bytes_max: defaults.updates_bytes_max.max(output.saturating_mul(4)),
            ..defaults
        }
    }

    /// Limits of every guest.
    pub(crate) fn limits(&self) -> executor::Limits {
        executor::Limits {
            memory_bytes_max: size(self.memory_bytes_max),
            wall_max: Duration::from_secs(self.wall_s_max),
            fuel_max: self.fuel_max,
            stdout_bytes_max: size(self.output_bytes_max),
            update_bytes_max: self.update_bytes_max,
            state_bytes_max: self.state_bytes_max,
            ..executor::Limits::default()
        }
    }

    /// Where the executor keeps what it makes.
    pub(crate) fn executor(&self, limits: &Limits) -> executor::Settings {
        let own = executor::Settings::below(&self.state.state_dir);
        executor::Settings {
            cache_dir: self.cache_dir.clone().unwrap_or(own.cache_dir),
            cache_bytes_max: self.cache_bytes_max,
            ahead: executor::Ahead {
                dir: self.precompiled_dir.clone(),
                allowed: self.precompiled_allow.iter().copied().collect(),
            },
            update_inline_bytes_max: limits.message_bytes_max as u64,
            ..own
        }
    }

    /// Where blobs lie.
    pub(crate) fn storage(&self, limits: Limits) -> Result<Storage, StorageError> {
        Storage::open(&self.state.state_dir.join(BLOBS), self.blob_bytes_max, limits)
    }

    /// From where programs may come.
    pub(crate) fn fetch(&self) -> fetch::Settings {
        fetch::Settings {
            module_dir: self.module_dir.clone(),
            cache: Some(self.module_cache()),
            registries: match self.image_pull {
                ImagePull::On => Some(self.registry.settings()),
                ImagePull::Off => None,
            },
            bytes_max: self.module_bytes_max,
            ..fetch::Settings::default()
        }
    }

    fn module_cache(&self) -> Cache {
        let dir = self.module_cache_dir.clone();
        let dir = dir.unwrap_or_else(|| self.state.state_dir.join("modules"));
        Cache::new(dir, self.module_cache_bytes_max)
    }

    /// Bytes of the largest message: a start that carries the largest program, in base64.
    pub(crate) fn message_bytes_max(&self) -> usize {
        size(self.module_bytes_max).saturating_mul(4) / 3 + (1 << 20)
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use protocol::{
        Letter as _,
        message::{AliveStatus, HeldTask, PropletAlive},
    };
    use service::settings::{Environment, resolve};

    use super::*;

    #[test]
    fn a_sign_of_life_with_all_tasks_that_can_be_held_is_one_that_the_manager_takes() {
        let held = (0..TASKS_QUEUED_MAX + 256)
            .map(|n| HeldTask { id: format!("{n:a>128}").parse().unwrap(), attempt: u32::MAX });
        let alive = PropletAlive {
            proplet_id: "p".repeat(128).parse().unwrap(),
            status: AliveStatus::Alive,
            namespace: String::new(),
            tasks: Some(held.collect()),
        };
        let metadata = 16 << 10;
        assert!(alive.seal().payload.len() + metadata < 256 << 10);
    }

    #[test]
    fn what_may_be_pulled_can_be_kept() {
        let check = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(std::ffi::OsString::from).collect();
            resolve::<PropletSettings>(&words, &Environment::default())
        };
        assert!(check(&["--module-bytes-max=1000", "--module-cache-bytes-max=1000"]).is_ok());
        for words in [
            &["--module-bytes-max=1000", "--module-cache-bytes-max=999"][..],
            &["--module-cache-bytes-max=0"],
        ] {
            let why = check(words).unwrap_err().to_string();
            assert!(
                why.contains("module_cache_bytes_max") && why.contains("module_bytes_max"),
                "{why}"
            );
        }
        // All that a module can have fits what is kept by default.
        assert!(check(&["--module-bytes-max=1073741824"]).is_ok());
    }

    #[test]
    fn compiled_programs_are_shared_where_nobody_else_can_write() {
        let dir = tempfile::tempdir().unwrap();
        let shared = dir.path().join("made/shared");
        assert_eq!(shareable(&shared), Ok(()));
        assert_eq!(fs::metadata(&shared).unwrap().mode() & 0o777, 0o700);
        for (mode, word) in [(0o777, "777"), (0o770, "770"), (0o1777, "1777")] {
            fs::set_permissions(&shared, fs::Permissions::from_mode(mode)).unwrap();
            let why = shareable(&shared).unwrap_err();
            assert!(why.ends_with(&format!("its mode is {word}")), "{why}");
        }
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(shareable(&shared), Ok(()));
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(shareable(&file).is_err());
    }
}
