//! `aileron broker`: the embedded broker on its own.

use std::{net::SocketAddr, path::PathBuf};

use ::broker::{BrokerConfig, BrokerError, Exposure, Guarded, Kind, TlsFiles};
use clap::Args;
use protocol::{ChannelId, DomainId, Namespace};
use service::{
    settings::{Settings, SettingsError},
    telemetry::LogArgs,
};
use tokio_util::sync::CancellationToken;

use crate::guard::guard;

/// What the embedded broker can be told.
#[derive(Debug, Args)]
pub(crate) struct BrokerSettings {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    /// Address and port to listen on; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:1883")]
    listen: SocketAddr,
    /// Listen without a roster on an address that other machines reach; anybody there may then say
    /// anything
    #[arg(long)]
    allow_remote: bool,
    /// Who may connect as what, from `aileron token`; without it, whoever reaches the broker
    #[arg(long, value_name = "FILE")]
    roster_file: Option<PathBuf>,
    /// Certificate (PEM) to show; with it, connections are encrypted
    #[arg(long, value_name = "FILE")]
    tls_cert_file: Option<PathBuf>,
    /// The key (PEM) of tls_cert_file
    #[arg(long, value_name = "FILE")]
    tls_key_file: Option<PathBuf>,
    /// Whose certificates (PEM) clients must have; without it they need none
    #[arg(long, value_name = "FILE")]
    tls_client_ca_file: Option<PathBuf>,
    /// Lists (PEM) of clients' certificates that were revoked; read again when it changes
    #[arg(long, value_name = "FILE")]
    tls_client_crl_file: Option<PathBuf>,
    /// Domain part of the control topics that the roster's roles are granted
    #[arg(long, value_name = "ID", default_value = "demo")]
    domain_id: DomainId,
    /// Channel part of the control topics that the roster's roles are granted
    #[arg(long, value_name = "ID", default_value = "fl")]
    channel_id: ChannelId,
    /// Levels before every topic that the roster's roles are granted
    #[arg(long, value_name = "LEVELS", default_value = "")]
    topic_prefix: String,
    /// Implementation
    #[arg(long, default_value_t = Kind::default())]
    kind: Kind,
    /// Directory for retained messages and sessions; without it they live in memory
    #[arg(long)]
    state_dir: Option<PathBuf>,
    /// Largest packet in bytes, 1024 to 268435456
    #[arg(long, default_value_t = ::broker::PACKET_BYTES_MAX)]
    packet_bytes_max: usize,
}

impl Settings for BrokerSettings {
    const SERVICE: &'static str = "broker";
    const ABOUT: &'static str = "Embedded MQTT broker, for first runs and tests";

    fn check(&self) -> Result<(), SettingsError> {
        let is_loopback = self.listen.ip().to_canonical().is_loopback();
        if !is_loopback && self.roster_file.is_none() && !self.allow_remote {
            let takes = "a loopback address; another one only with roster_file, which says who may \
                         connect, or with allow_remote, which lets in anybody";
            return Err(SettingsError::invalid("listen", self.listen, takes));
        }
        self.tls()?;
        self.guard()?;
        Ok(())
    }
}

impl BrokerSettings {
    /// Certificate and key go together, and what is asked of clients needs both.
    fn tls(&self) -> Result<Option<TlsFiles>, SettingsError> {
        let alone = |key, path: &PathBuf, other: &str| {
            SettingsError::invalid(
                key,
                path.display(),
                format!("a file only together with {other}"),
            )
        };
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(certificate), Some(key)) => {
                match (&self.tls_client_ca_file, &self.tls_client_crl_file) {
                    (None, Some(crl)) => {
                        Err(alone("tls_client_crl_file", crl, "tls_client_ca_file"))
                    }
                    (client_ca, client_crl) => Ok(Some(TlsFiles {
                        certificate: certificate.clone(),
                        key: key.clone(),
                        client_ca: client_ca.clone(),
                        client_crl: client_crl.clone(),
                    })),
                }
            }
            (Some(path), None) => Err(alone("tls_cert_file", path, "tls_key_file")),
            (None, Some(path)) => Err(alone("tls_key_file", path, "tls_cert_file")),
            (None, None) => match (&self.tls_client_ca_file, &self.tls_client_crl_file) {
                (Some(path), _) => Err(alone("tls_client_ca_file", path, "tls_cert_file")),
                (None, Some(path)) => Err(alone("tls_client_crl_file", path, "tls_cert_file")),
                (None, None) => Ok(None),
            },
        }
    }

    fn guard(&self) -> Result<Option<Guarded>, SettingsError> {
        let Some(path) = &self.roster_file else { return Ok(None) };
        let namespace = Namespace::new(&self.topic_prefix, &self.domain_id, &self.channel_id);
        let namespace = namespace
            .map_err(|why| SettingsError::invalid("topic_prefix", &self.topic_prefix, why))?;
        let unusable = |why| {
            let takes = format!("a roster as `aileron token` writes it ({why})");
            SettingsError::invalid("roster_file", path.display(), takes)
        };
        guard(path, namespace).map(Some).map_err(unusable)
    }

    /// Says how open the broker is.
    fn say_who_may_connect(&self) {
        match (&self.roster_file, self.listen.ip().to_canonical().is_loopback()) {
            (Some(roster), _) => {
                tracing::info!(roster = %roster.display(), "only who is on the roster may connect");
            }
            (None, true) => {
                tracing::info!("open to every program on this machine, and to no other machine");
            }
            (None, false) => tracing::warn!(
                listen = %self.listen,
                "open to everybody who can reach it (allow_remote): anybody may say anything"
            ),
        }
        if self.tls_cert_file.is_none() && !self.listen.ip().to_canonical().is_loopback() {
            tracing::warn!(
                "not encrypted: passwords and models can be read on the way (tls_cert_file)"
            );
        }
    }
}

/// Serves until stopped.
pub(super) async fn run(
    settings: BrokerSettings,
    stop: CancellationToken,
) -> Result<(), BrokerRunError> {
    settings.say_who_may_connect();
    let exposure = if settings.allow_remote { Exposure::Network } else { Exposure::LoopbackOnly };
    let running = ::broker::start(BrokerConfig {
        kind: settings.kind,
        listen: settings.listen,
        exposure,
        guard: settings.guard()?,
        tls: settings.tls()?,
        packet_bytes_max: settings.packet_bytes_max,
        state_dir: settings.state_dir,
        ..BrokerConfig::default()
    })
    .await?;
    stop.cancelled().await;
    running.stop().await;
    Ok(())
}

/// Why the broker does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum BrokerRunError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}
