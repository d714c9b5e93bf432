//! What an embedded broker is told at start, and which of it is refused before a port is opened.

use crate::{BrokerError, Guarded, Kind, TlsFiles};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// The smallest packet limit that is taken: below it not even a `CONNECT` is sure to fit.
pub const PACKET_BYTES_MIN: usize = 1024;
/// The largest packet limit that is taken: MQTT itself ends at 256 MiB.
pub const PACKET_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Settings of one embedded broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// Which implementation serves.
    pub kind: Kind,
    /// Where it listens; with port 0 the system picks one, see [`crate::RunningBroker::address`].
    pub listen: SocketAddr,
    /// Who may reach it, if there is no guard: then whoever reaches it may say and hear anything.
    pub exposure: Exposure,
    /// Who decides who may connect, and what they may say and hear.
    pub guard: Option<Guarded>,
    /// Certificate and key, if connections are encrypted; then no others are taken.
    pub tls: Option<TlsFiles>,
    /// The largest packet a client may send, in bytes; a larger one ends that client's connection.
    pub packet_bytes_max: usize,
    /// How many messages wait for one absent client; the oldest make room for newer ones.
    pub queued_messages_max: usize,
    /// How many bytes of messages wait for one absent client.
    pub queued_bytes_max: usize,
    /// Where retained messages, sessions and their queues are kept; in memory only if absent.
    pub state_dir: Option<PathBuf>,
}

/// Who may reach the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exposure {
    /// This machine alone; any other listen address needs a guard.
    #[default]
    LoopbackOnly,
    /// Whoever can route to the listen address, guard or not.
    Network,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            kind: Kind::default(),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1883),
            exposure: Exposure::default(),
            guard: None,
            tls: None,
            packet_bytes_max: PACKET_BYTES_MAX,
            queued_messages_max: 100_000,
            queued_bytes_max: 1024 * 1024 * 1024,
            state_dir: None,
        }
    }
}

impl BrokerConfig {
    /// Refuses what must not be served, naming the value.
    pub(crate) fn check(&self) -> Result<(), BrokerError> {
        let loopback = self.listen.ip().to_canonical().is_loopback();
        match self.exposure {
            Exposure::LoopbackOnly if !loopback && self.guard.is_none() => {
                return Err(BrokerError::NotLoopback { address: self.listen });
            }
            Exposure::LoopbackOnly | Exposure::Network => {}
        }
        if !(PACKET_BYTES_MIN..=PACKET_BYTES_MAX).contains(&self.packet_bytes_max) {
            return Err(BrokerError::PacketLimit { given_bytes: self.packet_bytes_max });
        }
        if self.queued_messages_max == 0 || self.queued_bytes_max == 0 {
            return Err(BrokerError::QueueLimit {
                messages: self.queued_messages_max,
                bytes: self.queued_bytes_max,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(address: &str) -> BrokerConfig {
        BrokerConfig { listen: address.parse().unwrap(), ..BrokerConfig::default() }
    }

    #[test]
    fn the_default_is_loopback_and_taken() {
        assert!(BrokerConfig::default().check().is_ok());
        assert!(BrokerConfig::default().listen.ip().is_loopback());
    }

    #[test]
    fn loopback_is_told_from_the_rest_in_every_spelling() {
        for address in ["127.0.0.1:1", "127.9.9.9:0", "[::1]:1883", "[::ffff:127.0.0.1]:1883"] {
            assert!(listening(address).check().is_ok(), "{address} is loopback");
        }
        for address in ["0.0.0.0:1883", "[::]:1883", "192.0.2.7:1883", "[::ffff:192.0.2.7]:1"] {
            let refused = listening(address).check().unwrap_err();
            assert!(refused.to_string().contains(address), "{refused} names {address}");
            let open = BrokerConfig { exposure: Exposure::Network, ..listening(address) };
            assert!(open.check().is_ok(), "{address} is taken when told so");
        }
    }

    #[test]
    fn limits_outside_mqtt_are_refused_by_value() {
        for packet_bytes_max in [0, 1023, PACKET_BYTES_MAX + 1, usize::MAX] {
            let config = BrokerConfig { packet_bytes_max, ..BrokerConfig::default() };
            let refused = config.check().unwrap_err().to_string();
            assert!(refused.contains(&packet_bytes_max.to_string()), "{refused}");
        }
        let config = BrokerConfig { queued_messages_max: 0, ..BrokerConfig::default() };
        assert!(matches!(config.check(), Err(BrokerError::QueueLimit { messages: 0, .. })));
        let config = BrokerConfig { queued_bytes_max: 0, ..BrokerConfig::default() };
        assert!(matches!(config.check(), Err(BrokerError::QueueLimit { bytes: 0, .. })));
    }
}
