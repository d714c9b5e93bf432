//! The address of a broker, as people write it.

use std::{fmt, str::FromStr};

/// How bytes travel to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Tcp,
    Tls,
    WebSocket,
    WebSocketTls,
}

/// `tcp://host:1883`, `ssl://host:8883`, `ws://host/path`, `wss://host/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttAddress {
    pub scheme: Scheme,
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    pub host: String,
    pub port: u16,
    /// Only of WebSocket addresses; empty, or starts with a slash.
    pub path: String,
}

/// Why a text is not the address of a broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MqttAddressError {
    #[error("there is no scheme; write tcp://HOST:PORT, or ssl://, ws://, wss://")]
    NoScheme,
    #[error("scheme {0:?} is not one of tcp, ssl, ws, wss")]
    Scheme(String),
    #[error(
        "user name and password do not belong into the address; set mqtt_username and client_key"
    )]
    Credentials,
    #[error("there is no host")]
    NoHost,
    #[error("{0:?} is not a host name or address; an IPv6 address stands in brackets")]
    Host(String),
    #[error("port {0:?} is not a number from 1 to 65535")]
    Port(String),
    #[error("only ws and wss addresses have a path; this one has {0:?}")]
    Path(String),
}

impl Scheme {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "ssl",
            Self::WebSocket => "ws",
            Self::WebSocketTls => "wss",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Tcp => 1883,
            Self::Tls => 8883,
            Self::WebSocket => 80,
            Self::WebSocketTls => 443,
        }
    }
}

impl FromStr for MqttAddress {
    type Err = MqttAddressError;

    fn from_str(text: &str) -> Result<Self, MqttAddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(MqttAddressError::NoScheme)?;
        let scheme = match scheme {
            "tcp" | "mqtt" => Scheme::Tcp,
            "ssl" | "tls" | "mqtts" => Scheme::Tls,
            "ws" => Scheme::WebSocket,
            "wss" => Scheme::WebSocketTls,
            other => return Err(MqttAddressError::Scheme(short(other))),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(MqttAddressError::Credentials);
        }
        let (host, port) = split(authority)?;
        let path = match scheme {
            Scheme::Tcp | Scheme::Tls if path.is_empty() || path == "/" => "",
            Scheme::Tcp | Scheme::Tls => return Err(MqttAddressError::Path(short(path))),
            Scheme::WebSocket | Scheme::WebSocketTls => path,
        };
        let port = match port {
            Some(port) => number(port)?,
            None => scheme.port(),
        };
        Ok(Self { scheme, host: checked(host)?, port, path: path.to_owned() })
    }
}

impl fmt::Display for MqttAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}{}", self.scheme.as_str(), self.host, self.port, self.path)
    }
}

/// Host, and port if there is one; the colons of an IPv6 address are inside of brackets.
fn split(authority: &str) -> Result<(&str, Option<&str>), MqttAddressError> {
    let after = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[after..].split_once(':') {
        Some((_, port)) if port.contains(':') => Err(MqttAddressError::Host(short(authority))),
        Some((rest, port)) => Ok((&authority[..after + rest.len()], Some(port))),
        None => Ok((authority, None)),
    }
}

fn number(port: &str) -> Result<u16, MqttAddressError> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse::<u16>()
        .ok()
        .filter(|port| digits && *port > 0)
        .ok_or_else(|| MqttAddressError::Port(short(port)))
}

fn checked(host: &str) -> Result<String, MqttAddressError> {
    if host.is_empty() {
        return Err(MqttAddressError::NoHost);
    }
    let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match inside {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            host.len() <= 253
                && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        }
    };
    if good { Ok(host.to_owned()) } else { Err(MqttAddressError::Host(short(host))) }
}

fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::{MqttAddress, MqttAddressError};

    #[test]
    fn addresses_read_as_they_are_written() {
        for (text, shown) in [
            ("tcp://127.0.0.1:1883", "tcp://127.0.0.1:1883"),
            ("tcp://broker", "tcp://broker:1883"),
            ("mqtt://broker:1/", "tcp://broker:1"),
            ("ssl://broker.example", "ssl://broker.example:8883"),
            ("tcp://[::1]:1884", "tcp://[::1]:1884"),
            ("ws://broker/mqtt", "ws://broker:80/mqtt"),
            ("wss://broker:8084/a/b", "wss://broker:8084/a/b"),
        ] {
            assert_eq!(text.parse::<MqttAddress>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        use MqttAddressError as E;
        for (text, error) in [
            ("127.0.0.1:1883", E::NoScheme),
            ("http://broker", E::Scheme("http".into())),
            ("tcp://", E::NoHost),
            ("tcp://:1883", E::NoHost),
            ("tcp://user:pass@broker", E::Credentials),
            ("tcp://broker:0", E::Port("0".into())),
            ("tcp://broker:+1", E::Port("+1".into())),
            ("tcp://broker:99999", E::Port("99999".into())),
            ("tcp://::1:1883", E::Host("::1:1883".into())),
            ("tcp://bro ker", E::Host("bro ker".into())),
            ("tcp://[zz]:1", E::Host("[zz]".into())),
            ("tcp://broker/x", E::Path("/x".into())),
        ] {
            assert_eq!(text.parse::<MqttAddress>(), Err(error), "{text}");
        }
    }
}
