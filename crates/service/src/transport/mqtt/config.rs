//! What it takes to connect to a broker.

use std::time::Duration;

use protocol::{Envelope, Namespace};

use super::Tls;
use crate::settings::{MqttAddress, Secret};

/// Whether the broker remembers us while we are away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// Yes, under our client id: for services.
    Persistent,
    /// No: for callers that come once, with a client id of their own each time.
    Transient,
}

/// Name and password.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub username: String,
    pub password: Option<Secret>,
}

/// One participant's way to one broker.
#[derive(Clone, Debug)]
pub struct Config {
    pub address: MqttAddress,
    pub namespace: Namespace,
    /// At most one connection at a time may use it.
    pub client_id: String,
    pub session: SessionKind,
    pub credentials: Option<Credentials>,
    pub keep_alive: Duration,
    /// What encrypted addresses trust; nothing for plain ones.
    pub tls: Tls,
    /// What the broker says for us when we vanish.
    pub last_will: Option<Envelope>,
    /// Larger payloads never reach a machine, except for updates: those are answered by a
    /// machine, so they pass up to what MQTT can carry.
    pub payload_bytes_max: usize,
}

impl Config {
    /// The default of `payload_bytes_max`: 64 MiB.
    pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

    /// A plain, persistent connection with every default.
    pub fn new(address: MqttAddress, client_id: impl Into<String>, namespace: Namespace) -> Self {
        Self {
            address,
            namespace,
            client_id: client_id.into(),
            session: SessionKind::Persistent,
            credentials: None,
            keep_alive: Duration::from_secs(60),
            tls: Tls::default(),
            last_will: None,
            payload_bytes_max: Self::PAYLOAD_BYTES_MAX,
        }
    }
}
