//! `aileron kit`: what a device starts with, in one signed file; made by the operator, checked and
//! unpacked on the device.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use access::{
    Authority, Entry, KitFiles, KitManifest, Name, Roster, Signer, SigningKey, Subject, Validity,
    Welcome, fingerprint, moment, open_kit, seal_kit,
};
use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use protocol::{ChannelId, DomainId, Namespace, topic::Role};
use serde::{Deserialize, Serialize};
use service::{
    Clock as _, SystemClock,
    settings::{MqttAddress, Scheme},
};

use super::{
    ca::CaArgs,
    enroll,
    token::{RosterArgs, invite, now, time_span},
};
use crate::{
    archive,
    device::{self, DeviceDir},
    view,
};

/// In a kit without keys: where to join, and with what.
const JOIN_FILE: &str = "join.json";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Kits {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    make: Make,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check a kit: whole, unchanged, and of the authority that is named
    Verify(Check),
    /// Check a kit and unpack it into a directory that a proplet runs from
    Install {
        #[command(flatten)]
        check: Check,
        /// Directory for the device's settings and keys; made if it is not there
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Check {
    /// The kit
    file: PathBuf,
    /// Fingerprint of the authority, as `aileron kit` has shown it: sha256:...
    #[arg(long, value_name = "SHA256", value_parser = authority)]
    authority: String,
}

/// What a kit is made of.
#[derive(Debug, Args)]
struct Make {
    /// Names of the proplets: their ids; a kit each, NAME.kit
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Name>,
    /// The broker: ssl://HOST:PORT or wss://HOST:PORT/PATH
    #[arg(long, value_name = "URL", required_unless_present = "join")]
    mqtt_address: Option<MqttAddress>,
    /// Whose certificates (PEM) devices trust at the broker; the authority's if not set
    #[arg(long, value_name = "FILE")]
    mqtt_ca_file: Option<PathBuf>,
    /// Name on the broker's certificate, where it is not the host of mqtt-address
    #[arg(long, value_name = "NAME")]
    mqtt_server_name: Option<String>,
    /// Domain part of the control topics
    #[arg(long, default_value = "demo")]
    domain_id: DomainId,
    /// Channel part of the control topics
    #[arg(long, default_value = "fl")]
    channel_id: ChannelId,
    /// Levels that stand before every topic
    #[arg(long, default_value = "")]
    topic_prefix: String,
    /// Directory with the device's data, as it is on the device
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Days for which the certificate is good
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Put no keys into the kit, but a token with which the device joins at this registrar, an
    /// https:// address, when it is installed: so its keys never travel
    #[arg(long, value_name = "URL")]
    join: Option<String>,
    /// For how long that token is good: 90s, 30m, 1h or 7d, at most 30d
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = time_span)]
    expires: Duration,
    /// Directory for the kits
    #[arg(long, default_value = ".")]
    out: PathBuf,
    #[command(flatten)]
    ca: CaArgs,
    #[command(flatten)]
    roster: RosterArgs,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Join {
    registrar: String,
    token: String,
    data_dir: Option<PathBuf>,
}

impl Kits {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match (self.verb, self.make) {
            (Some(Verb::Verify(check)), _) => {
                let (manifest, _) = opened(&check)?;
                let files = manifest.files.keys().map(String::as_str).collect::<Vec<_>>();
                view::line(format!("{}: a kit of {}", check.file.display(), manifest.name));
                view::line(format!("made {}: {}", manifest.created_at, files.join(" ")));
            }
            (Some(Verb::Install { check, out }), _) => {
                let settings = install(&check, &out)?;
                view::line(settings.display().to_string());
                view::aside(format!(
                    "Check the device: aileron preflight --config {}",
                    settings.display()
                ));
            }
            (None, make) => make.run()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Make {
    fn run(&self) -> anyhow::Result<()> {
        let authority = Authority::load(&self.ca.ca_dir)?;
        std::fs::create_dir_all(&self.out)
            .with_context(|| format!("make {}", self.out.display()))?;
        for name in &self.names {
            let path = self.out.join(format!("{name}.kit"));
            ensure!(!path.exists(), "{} is there already", path.display());
            let files = match &self.join {
                Some(registrar) => self.invitation(name, registrar)?,
                None => self.keys(name, &authority)?,
            };
            let files = seal_kit(&authority, name.clone(), now(), files)?;
            archive::write(&path, &files)?;
            view::line(path.display().to_string());
        }
        view::aside(format!(
            "On the device: aileron kit install NAME.kit --authority sha256:{} --out DIR",
            authority.fingerprint()?
        ));
        if self.join.is_none() {
            view::aside(
                "The kits hold private keys: hand them over as such, and delete them then.",
            );
        }
        Ok(())
    }

    fn invitation(&self, name: &Name, registrar: &str) -> anyhow::Result<KitFiles> {
        ensure!(registrar.starts_with("https://"), "{registrar}: it begins with https://");
        let token = invite(name.clone(), self.expires, &self.ca, &self.roster)?;
        let join = Join {
            registrar: registrar.to_owned(),
            token: token.expose(),
            data_dir: self.data_dir.clone(),
        };
        Ok([(JOIN_FILE.to_owned(), serde_json::to_vec_pretty(&join)?)].into())
    }

    /// Keys, certificate and settings, and a place on the roster.
    fn keys(&self, name: &Name, authority: &Authority) -> anyhow::Result<KitFiles> {
        let welcome = self.welcome(name, authority)?;
        let good = Validity::days(moment(SystemClock.now()), self.days);
        let issued = authority.issue(&Subject { name: name.to_string(), hosts: vec![] }, good)?;
        let signing_key = SigningKey::make()?;
        let entry = Entry {
            role: Some(Role::Proplet),
            certificate_sha256: Some(fingerprint(&issued.certificate_der)),
            public_key: Some(signing_key.public()),
            ..Entry::new(now())
        };
        Roster::edit(&self.roster.roster_file, |all| all.add(name.clone(), entry))?;
        let settings = device::settings(&welcome, self.data_dir.as_deref());
        let files = [
            (device::SETTINGS_FILE, settings),
            (device::CA_FILE, welcome.broker_ca),
            (device::CERTIFICATE_FILE, issued.certificate_pem),
            (device::KEY_FILE, issued.key_pem),
            (device::SIGNING_KEY_FILE, signing_key.text()),
        ];
        Ok(files.map(|(name, text)| (name.to_owned(), text.into_bytes())).into())
    }

    fn welcome(&self, name: &Name, authority: &Authority) -> anyhow::Result<Welcome> {
        let address = self.mqtt_address.as_ref().context("it takes --mqtt-address")?;
        match address.scheme {
            Scheme::Tls | Scheme::WebSocketTls => {}
            Scheme::Tcp | Scheme::WebSocket => anyhow::bail!(
                "--mqtt-address {address}: it takes ssl:// or wss://, since devices show the \
                 broker their certificate"
            ),
        }
        Namespace::new(&self.topic_prefix, &self.domain_id, &self.channel_id)
            .with_context(|| format!("topic-prefix {:?}", self.topic_prefix))?;
        let broker_ca = match &self.mqtt_ca_file {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?
            }
            None => authority.pem().to_owned(),
        };
        Ok(Welcome {
            name: name.to_string(),
            certificate: String::new(),
            broker_ca,
            mqtt_address: address.to_string(),
            mqtt_server_name: self.mqtt_server_name.clone(),
            domain_id: self.domain_id.to_string(),
            channel_id: self.channel_id.to_string(),
            topic_prefix: self.topic_prefix.trim_end_matches('/').to_owned(),
        })
    }
}

fn opened(check: &Check) -> anyhow::Result<(KitManifest, KitFiles)> {
    let files = archive::read(&check.file)?;
    let manifest = open_kit(&files, Signer::Known(&check.authority))
        .with_context(|| format!("{} is not to be trusted", check.file.display()))?;
    Ok((manifest, files))
}

/// Unpacks a kit that is as it was made; the path of the settings.
fn install(check: &Check, out: &Path) -> anyhow::Result<PathBuf> {
    let (_, files) = opened(check)?;
    if let Some(join) = files.get(JOIN_FILE) {
        let join: Join = serde_json::from_slice(join).with_context(|| JOIN_FILE.to_owned())?;
        return enroll::join(&join.registrar, &join.token.parse()?, out, join.data_dir.as_deref());
    }
    let mut dir = DeviceDir::open(out)?;
    for (name, bytes) in &files {
        dir.write(name, bytes)?;
    }
    dir.finish()
}

/// A fingerprint, with or without its kind.
fn authority(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let is_one = digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if is_one {
        Ok(digits.to_ascii_lowercase())
    } else {
        Err("it takes sha256: and 64 hexadecimal digits".to_owned())
    }
}
