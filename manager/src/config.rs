//! What an operator can tell the manager.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use access::LiveRoster;
use fleet::Limits;
use service::{
    settings::{MqttArgs, Settings, SettingsError, StateArgs},
    telemetry::LogArgs,
    transport::mqtt::Config,
};

use crate::{callers::Callers, listen::HttpTls};

/// Settings of the manager.
#[derive(Debug, clap::Args)]
pub struct ManagerSettings {
    #[command(flatten)]
    pub mqtt: MqttArgs,
    #[command(flatten)]
    pub state: StateArgs,
    #[command(flatten)]
    pub log: LogArgs,
    /// IP address, or localhost, that the HTTP API listens on; other than on the loopback it needs
    /// roster_file
    #[arg(long, value_name = "IP", default_value = "127.0.0.1", value_parser = host)]
    pub http_host: IpAddr,
    /// Port of the HTTP API, 0 to 65535; 0 takes any that is free
    #[arg(long, value_name = "PORT", default_value = "7070")]
    pub http_port: u16,
    /// Whose tokens the HTTP API takes, from `aileron token`; without it, it asks nobody who they are
    #[arg(long, value_name = "FILE")]
    pub roster_file: Option<PathBuf>,
    /// Offer the HTTP API without a roster on an address that other machines reach; anybody there
    /// may then run tasks
    #[arg(long)]
    pub http_allow_remote: bool,
    /// Certificate (PEM) of the HTTP API; with it, it speaks HTTPS only
    #[arg(long, value_name = "FILE")]
    pub http_tls_cert_file: Option<PathBuf>,
    /// The key (PEM) of http_tls_cert_file
    #[arg(long, value_name = "FILE")]
    pub http_tls_key_file: Option<PathBuf>,
    /// Seconds of silence after which a proplet counts as offline, 1 to 86400
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub liveness_s: u64,
    /// Longest module that is taken, 8 to 268435456 bytes
    #[arg(long, value_name = "BYTES", default_value = "33554432", value_parser = clap::value_parser!(u64).range(8..=268_435_456))]
    pub upload_bytes_max: u64,
    /// All modules together, at least 8 bytes
    #[arg(long, value_name = "BYTES", default_value = "536870912", value_parser = clap::value_parser!(u64).range(8..))]
    pub files_bytes_max: u64,
    /// Longest result kept of a task, 64 to 16777216 bytes
    #[arg(long, value_name = "BYTES", default_value = "1048576", value_parser = clap::value_parser!(u64).range(64..=16_777_216))]
    pub results_bytes_max: u64,
    /// Tasks held at once, 1 to 1000000
    #[arg(long, value_name = "COUNT", default_value = "100000", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub tasks_max: u64,
    /// Finished federated tasks that are kept, 0 to 1000000; the oldest are dropped
    #[arg(long, value_name = "COUNT", default_value = "10000", value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub federated_kept_max: u64,
    /// Proplets known at once, 1 to 1000000
    #[arg(long, value_name = "COUNT", default_value = "100000", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub proplets_max: u64,
}

impl Settings for ManagerSettings {
    const SERVICE: &'static str = "manager";
    const ABOUT: &'static str = "Runs tasks on proplets, forwards their updates, offers HTTP";

    fn check(&self) -> Result<(), SettingsError> {
        if self.files_bytes_max < self.upload_bytes_max {
            let takes = format!("at least upload_bytes_max, {}", self.upload_bytes_max);
            return Err(SettingsError::invalid("files_bytes_max", self.files_bytes_max, takes));
        }
        if !self.is_loopback() && self.roster_file.is_none() && !self.http_allow_remote {
            let takes = "a loopback address; another one only with roster_file, which says who may \
                         call, or with http_allow_remote, which lets in anybody";
            return Err(SettingsError::invalid("http_host", self.http_host, takes));
        }
        self.http_tls()?;
        self.callers()?;
        Ok(())
    }
}

impl ManagerSettings {
    pub(crate) const fn http_address(&self) -> SocketAddr {
        SocketAddr::new(self.http_host, self.http_port)
    }

    fn is_loopback(&self) -> bool {
        self.http_host.to_canonical().is_loopback()
    }

    /// What HTTPS needs; nothing for plain HTTP.
    pub(crate) fn http_tls(&self) -> Result<Option<HttpTls>, SettingsError> {
        let alone = |key, path: &Path, other: &str| {
            SettingsError::invalid(
                key,
                path.display(),
                format!("a file only together with {other}"),
            )
        };
        match (&self.http_tls_cert_file, &self.http_tls_key_file) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => HttpTls::load(certificate, key).map(Some),
            (Some(path), None) => Err(alone("http_tls_cert_file", path, "http_tls_key_file")),
            (None, Some(path)) => Err(alone("http_tls_key_file", path, "http_tls_cert_file")),
        }
    }

    /// Who may call.
    pub(crate) fn callers(&self) -> Result<Callers, SettingsError> {
        let Some(path) = &self.roster_file else { return Ok(Callers::Anybody) };
        let roster = LiveRoster::open(path).map_err(|why| {
            let takes = format!("a roster as `aileron token` writes it ({why})");
            SettingsError::invalid("roster_file", path.display(), takes)
        })?;
        Ok(Callers::of(roster))
    }

    /// Says how open the HTTP API is.
    pub(crate) fn say_who_may_call(&self) {
        match (&self.roster_file, self.is_loopback()) {
            (Some(roster), _) => {
                tracing::info!(roster = %roster.display(), "the HTTP API asks for tokens");
            }
            (None, true) => tracing::info!(
                "the HTTP API is open to every program on this machine, and to no other machine"
            ),
            (None, false) => tracing::warn!(
                address = %self.http_address(),
                "the HTTP API is open to everybody who can reach it (http_allow_remote)"
            ),
        }
        if !self.is_loopback() && self.http_tls_cert_file.is_none() {
            tracing::warn!(
                "the HTTP API is not encrypted: tokens can be read on the way \
                            (http_tls_cert_file)"
            );
        }
    }

    pub(crate) fn upload_len_max(&self) -> usize {
        whole(self.upload_bytes_max)
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            liveness: Duration::from_secs(self.liveness_s),
            proplets_max: whole(self.proplets_max),
            tasks_max: whole(self.tasks_max),
            federated_kept_max: whole(self.federated_kept_max),
            results_len_max: whole(self.results_bytes_max),
            files_len_max: whole(self.files_bytes_max),
            ..Limits::default()
        }
    }

    /// Takes in and gives out the longest module, which travels as base64.
    pub(crate) fn transport(&self) -> Result<Config, SettingsError> {
        let mut config = self.mqtt.config(Self::SERVICE, None)?;
        let longest = self.upload_len_max().saturating_mul(4) / 3 + (1 << 20);
        config.payload_bytes_max = config.payload_bytes_max.max(longest);
        Ok(config)
    }
}

fn host(text: &str) -> Result<IpAddr, std::net::AddrParseError> {
    match text {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        text => text.parse(),
    }
}

fn whole(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
