//! How an HTTP API is guarded: its settings are the same for every service that has one.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use access::LiveRoster;
use service::settings::SettingsError;

use crate::{callers::Callers, listen::HttpTls};

/// Settings of whoever listens for HTTP.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct GuardArgs {
    /// Who is who, from `aileron token`: the HTTP API takes the tokens that stand there; without
    /// it, it asks nobody who they are
    #[arg(long, value_name = "FILE")]
    pub roster_file: Option<PathBuf>,
    /// Offer the HTTP API without a roster on an address that other machines reach; anybody there
    /// may then give orders
    #[arg(long)]
    pub http_allow_remote: bool,
    /// Certificate (PEM) of the HTTP API; with it, it speaks HTTPS only
    #[arg(long, value_name = "FILE")]
    pub http_tls_cert_file: Option<PathBuf>,
    /// The key (PEM) of http_tls_cert_file
    #[arg(long, value_name = "FILE")]
    pub http_tls_key_file: Option<PathBuf>,
}

impl GuardArgs {
    /// Whether an API on `host` is guarded well enough to begin.
    pub fn check(&self, host: IpAddr) -> Result<(), SettingsError> {
        if !is_loopback(host) && self.roster_file.is_none() && !self.http_allow_remote {
            let takes = "a loopback address; another one only with roster_file, which says who may \
                         call, or with http_allow_remote, which lets in anybody";
            return Err(SettingsError::invalid("http_host", host, takes));
        }
        self.tls()?;
        self.callers()?;
        Ok(())
    }

    /// What HTTPS needs; nothing for plain HTTP.
    pub fn tls(&self) -> Result<Option<HttpTls>, SettingsError> {
        let alone = |key, path: &Path, other: &str| {
            let takes = format!("a file only together with {other}");
            SettingsError::invalid(key, path.display(), takes)
        };
        match (&self.http_tls_cert_file, &self.http_tls_key_file) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => HttpTls::load(certificate, key).map(Some),
            (Some(path), None) => Err(alone("http_tls_cert_file", path, "http_tls_key_file")),
            (None, Some(path)) => Err(alone("http_tls_key_file", path, "http_tls_cert_file")),
        }
    }

    /// Who may call.
    pub fn callers(&self) -> Result<Callers, SettingsError> {
        Ok(self.roster()?.map_or(Callers::Anybody, Callers::of))
    }

    /// The roster, if there is one.
    pub fn roster(&self) -> Result<Option<LiveRoster>, SettingsError> {
        let Some(path) = &self.roster_file else { return Ok(None) };
        let opened = LiveRoster::open(path).map(Some);
        opened.map_err(|why| {
            let takes = format!("a roster as `aileron token` writes it ({why})");
            SettingsError::invalid("roster_file", path.display(), takes)
        })
    }

    /// Says how open the HTTP API on `address` is.
    pub fn say_who_may_call(&self, address: SocketAddr) {
        match (&self.roster_file, is_loopback(address.ip())) {
            (Some(roster), _) => {
                tracing::info!(roster = %roster.display(), "the HTTP API asks for tokens");
            }
            (None, true) => tracing::info!(
                "the HTTP API is open to every program on this machine, and to no other machine"
            ),
            (None, false) => tracing::warn!(
                %address,
                "the HTTP API is open to everybody who can reach it (http_allow_remote)"
            ),
        }
        if !is_loopback(address.ip()) && self.http_tls_cert_file.is_none() {
            tracing::warn!(
                "the HTTP API is not encrypted: tokens can be read on the way (http_tls_cert_file)"
            );
        }
    }
}

fn is_loopback(host: IpAddr) -> bool {
    host.to_canonical().is_loopback()
}
