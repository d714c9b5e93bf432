//! What an operator can tell the registrar.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use access::{Authority, Roster, Subject, Validity, Welcome, first_certificate, moment};
use http_api::HttpTls;
use protocol::{ChannelId, DomainId, Namespace};
use service::{
    Clock as _, SystemClock,
    settings::{MqttAddress, Scheme, Settings, SettingsError},
    telemetry::LogArgs,
};

/// Days for which the registrar's own certificate is good; it makes a new one at each start.
const OWN_DAYS: u32 = 3650;

/// Settings of the registrar.
#[derive(Clone, Debug, clap::Args)]
pub struct RegistrarSettings {
    #[command(flatten)]
    pub log: LogArgs,
    /// IP address, or localhost, that it listens on; always HTTPS, and for tokens for joining only
    #[arg(long, value_name = "IP", default_value = "127.0.0.1", value_parser = host)]
    pub http_host: IpAddr,
    /// Port, 0 to 65535; 0 takes any that is free
    #[arg(long, value_name = "PORT", default_value = "7072")]
    pub http_port: u16,
    /// Names and addresses by which devices call it
    #[arg(long, value_name = "HOST", default_values = ["localhost", "127.0.0.1"])]
    pub hosts: Vec<String>,
    /// Directory of the authority, from `aileron ca init`
    #[arg(long, value_name = "DIR", default_value = ".aileron/ca")]
    pub ca_dir: PathBuf,
    /// The roster, on which the devices are put that join; made if it is not there
    #[arg(long, value_name = "FILE", default_value = ".aileron/roster.json")]
    pub roster_file: PathBuf,
    /// Days for which a device's certificate is good, 1 to 3650
    #[arg(long, value_name = "DAYS", default_value = "365", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// The broker that devices are sent to: ssl://HOST:PORT or wss://HOST:PORT/PATH
    #[arg(long, value_name = "URL")]
    pub mqtt_address: MqttAddress,
    /// Whose certificates (PEM) devices trust at the broker; the authority's if not set
    #[arg(long, value_name = "FILE")]
    pub mqtt_ca_file: Option<PathBuf>,
    /// Name on the broker's certificate, where it is not the host of mqtt_address
    #[arg(long, value_name = "NAME")]
    pub mqtt_server_name: Option<String>,
    /// Domain part of the control topics
    #[arg(long, value_name = "ID", default_value = "demo")]
    pub domain_id: DomainId,
    /// Channel part of the control topics
    #[arg(long, value_name = "ID", default_value = "fl")]
    pub channel_id: ChannelId,
    /// Levels before every topic
    #[arg(long, value_name = "LEVELS", default_value = "")]
    pub topic_prefix: String,
}

impl Settings for RegistrarSettings {
    const SERVICE: &'static str = "registrar";
    const ABOUT: &'static str = "Gives devices that have a token for joining their certificate";

    fn check(&self) -> Result<(), SettingsError> {
        match self.mqtt_address.scheme {
            Scheme::Tls | Scheme::WebSocketTls => {}
            Scheme::Tcp | Scheme::WebSocket => {
                let takes = "ssl:// or wss://, since devices show the broker their certificate";
                return Err(SettingsError::invalid("mqtt_address", &self.mqtt_address, takes));
            }
        }
        Namespace::new(&self.topic_prefix, &self.domain_id, &self.channel_id)
            .map_err(|why| SettingsError::invalid("topic_prefix", &self.topic_prefix, why))?;
        let authority = self.authority()?;
        self.tls(&authority)?;
        self.broker_ca(&authority)?;
        Roster::load_or_new(&self.roster_file).map(drop).map_err(|why| {
            let takes = format!("a roster as `aileron token` writes it ({why})");
            SettingsError::invalid("roster_file", self.roster_file.display(), takes)
        })
    }
}

impl RegistrarSettings {
    pub(crate) const fn http_address(&self) -> SocketAddr {
        SocketAddr::new(self.http_host, self.http_port)
    }

    pub(crate) fn authority(&self) -> Result<Authority, SettingsError> {
        Authority::load(&self.ca_dir).map_err(|why| {
            let takes = format!("the directory of an authority, from `aileron ca init` ({why})");
            SettingsError::invalid("ca_dir", self.ca_dir.display(), takes)
        })
    }

    /// A certificate for itself, which nobody else keeps.
    pub(crate) fn tls(&self, authority: &Authority) -> Result<HttpTls, SettingsError> {
        let wrong = |why: String| {
            let takes = format!("host names and addresses ({why})");
            SettingsError::invalid("hosts", self.hosts.join(","), takes)
        };
        let subject = Subject { name: Self::SERVICE.to_owned(), hosts: self.hosts.clone() };
        let good = Validity::days(moment(SystemClock.now()), OWN_DAYS);
        let own = authority.issue(&subject, good).map_err(|why| wrong(why.to_string()))?;
        HttpTls::of(own.certificate_pem.as_bytes(), own.key_pem.as_bytes()).map_err(wrong)
    }

    /// Whom devices trust at the broker.
    fn broker_ca(&self, authority: &Authority) -> Result<String, SettingsError> {
        let Some(path) = &self.mqtt_ca_file else { return Ok(authority.pem().to_owned()) };
        let wrong = |why: String| {
            let takes = format!("a PEM file with the certificates to trust ({why})");
            SettingsError::invalid("mqtt_ca_file", path.display(), takes)
        };
        let pem = fs::read_to_string(path).map_err(|why| wrong(why.to_string()))?;
        match first_certificate(pem.as_bytes()) {
            Some(_) => Ok(pem),
            None => Err(wrong("it holds none".to_owned())),
        }
    }

    /// What a device is told beside its name and certificate.
    pub(crate) fn welcome(&self, authority: &Authority) -> Result<Welcome, SettingsError> {
        Ok(Welcome {
            name: String::new(),
            certificate: String::new(),
            broker_ca: self.broker_ca(authority)?,
            mqtt_address: self.mqtt_address.to_string(),
            mqtt_server_name: self.mqtt_server_name.clone(),
            domain_id: self.domain_id.to_string(),
            channel_id: self.channel_id.to_string(),
            topic_prefix: self.topic_prefix.trim_end_matches('/').to_owned(),
        })
    }
}

fn host(text: &str) -> Result<IpAddr, std::net::AddrParseError> {
    match text {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        text => text.parse(),
    }
}
