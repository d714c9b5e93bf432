//! Settings that several services have, to be flattened into theirs.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use protocol::{ChannelId, DomainId, Envelope, Namespace};

use super::{Limits, MqttAddress, PayloadLimit, SettingsError};
use crate::transport::mqtt::{Config, Credentials, SessionKind, Tls, TlsFiles, probe};

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for whoever has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The way to the broker, and this platform's place on it.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Broker")]
pub struct MqttArgs {
    /// Broker: tcp://HOST:PORT, ssl://HOST:PORT, ws://HOST:PORT/PATH or wss://HOST:PORT/PATH
    #[arg(long, value_name = "URL", default_value = "tcp://127.0.0.1:1883")]
    pub mqtt_address: MqttAddress,
    /// Domain part of the control topics: 1 to 128 of A-Z a-z 0-9 . _ -
    #[arg(long, value_name = "ID", default_value = "demo")]
    pub domain_id: DomainId,
    /// Channel part of the control topics: 1 to 128 of A-Z a-z 0-9 . _ -
    #[arg(long, value_name = "ID", default_value = "fl")]
    pub channel_id: ChannelId,
    /// MQTT client id, not used by any other process; made from service, domain and channel if not set
    #[arg(long, value_name = "ID", value_parser = client_id)]
    pub client_id: Option<String>,
    /// Password at the broker
    #[arg(long, value_name = "KEY")]
    pub client_key: Option<Secret>,
    /// User name at the broker; the client id if only a password is set
    #[arg(long, value_name = "NAME")]
    pub mqtt_username: Option<String>,
    /// Levels put before every topic, so that several platforms can share a broker; like site-1/test
    #[arg(long, value_name = "LEVELS", default_value = "", value_parser = topic_prefix)]
    pub topic_prefix: String,
    /// Seconds between signs of life, 1 to 65535; one message must not take longer than that to send
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u16).range(1..))]
    pub mqtt_keep_alive_s: u16,
    /// Largest message that the broker takes, 16384 to 268435455 bytes; what is larger goes in pieces. With auto the broker is asked, and no more than 1048576 is used
    #[arg(long, value_name = "BYTES|auto", default_value = "1048576")]
    pub payload_bytes_max: PayloadLimit,
    /// Certificates (PEM) to trust for ssl and wss, in place of the system's
    #[arg(long, value_name = "FILE")]
    pub mqtt_ca_file: Option<PathBuf>,
    /// Lists (PEM) of the brokers' certificates that were revoked, for ssl and wss
    #[arg(long, value_name = "FILE")]
    pub mqtt_crl_file: Option<PathBuf>,
    /// Our certificate (PEM) for a broker that asks for one, with ssl and wss
    #[arg(long, value_name = "FILE")]
    pub mqtt_cert_file: Option<PathBuf>,
    /// The key (PEM) of mqtt_cert_file
    #[arg(long, value_name = "FILE")]
    pub mqtt_key_file: Option<PathBuf>,
    /// Name on the broker's certificate, where it is not the host of mqtt_address
    #[arg(long, value_name = "NAME")]
    pub mqtt_server_name: Option<String>,
}

impl MqttArgs {
    /// Where this platform's topics live.
    pub fn namespace(&self) -> Namespace {
        Namespace::new(&self.topic_prefix, &self.domain_id, &self.channel_id)
            .expect("the prefix was checked when it was parsed")
    }

    /// The client id that was set, or one made of `name` (a service, a proplet) and the platform's
    /// place, so that two platforms on one broker do not drive each other out.
    pub fn client_id_or(&self, name: &str) -> String {
        self.client_id.clone().unwrap_or_else(|| {
            let prefix = self.topic_prefix.replace('/', "-");
            let dash = if prefix.is_empty() { "" } else { "-" };
            format!("{prefix}{dash}{}-{}-{name}", self.domain_id, self.channel_id)
        })
    }

    /// What goes in one message and what in pieces. A broker that is to be asked, and does not
    /// answer in a few seconds, gets the default. `name` as for [`MqttArgs::client_id_or`].
    pub async fn limits(&self, name: &str) -> Result<Limits, SettingsError> {
        let default = PayloadLimit::DEFAULT_BYTES;
        let bytes = match self.payload_bytes_max {
            PayloadLimit::Bytes(bytes) => bytes,
            PayloadLimit::Auto => match probe(&self.config(name, None)?).await {
                Ok(said) => said.unwrap_or(default).min(default),
                Err(why) => {
                    tracing::warn!(%why, default, "the broker does not say how much it takes");
                    default
                }
            },
        };
        tracing::debug!(payload_bytes_max = bytes, "larger messages go in pieces");
        Ok(Limits::of(bytes))
    }

    fn tls_files(&self) -> TlsFiles {
        TlsFiles {
            ca: self.mqtt_ca_file.clone(),
            crl: self.mqtt_crl_file.clone(),
            certificate: self.mqtt_cert_file.clone(),
            key: self.mqtt_key_file.clone(),
            server_name: self.mqtt_server_name.clone(),
        }
    }

    /// What the transport needs; reads the certificates if there are any to read. `name` as for
    /// [`MqttArgs::client_id_or`].
    pub fn config(&self, name: &str, last_will: Option<Envelope>) -> Result<Config, SettingsError> {
        let client_id = self.client_id_or(name);
        let credentials = match (&self.mqtt_username, &self.client_key) {
            (None, None) => None,
            (user, key) => Some(Credentials {
                username: user.clone().unwrap_or_else(|| client_id.clone()),
                password: key.clone(),
            }),
        };
        Ok(Config {
            address: self.mqtt_address.clone(),
            namespace: self.namespace(),
            session: SessionKind::Persistent,
            keep_alive: Duration::from_secs(self.mqtt_keep_alive_s.into()),
            tls: Tls::load(&self.mqtt_address, &self.tls_files())?,
            payload_bytes_max: Config::PAYLOAD_BYTES_MAX,
            client_id,
            credentials,
            last_will,
        })
    }
}

/// Where a service keeps what it must not lose.
#[derive(Clone, Debug, clap::Args)]
pub struct StateArgs {
    /// Directory for what the service must not lose; one process at a time
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
}

fn client_id(text: &str) -> Result<String, String> {
    let len = text.chars().count();
    if len == 0 || len > 256 {
        return Err(format!("a client id has 1 to 256 characters, this one has {len}"));
    }
    match text.chars().find(|c| c.is_control() || matches!(c, '+' | '#' | '/')) {
        Some(bad) => Err(format!("{bad:?} is not allowed in a client id")),
        None => Ok(text.to_owned()),
    }
}

fn topic_prefix(text: &str) -> Result<String, protocol::IdError> {
    let domain = "d".parse::<DomainId>()?;
    let channel = "c".parse::<ChannelId>()?;
    Namespace::new(text, &domain, &channel)?;
    Ok(text.trim_end_matches('/').to_owned())
}
