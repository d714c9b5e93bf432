//! What an operator can tell the manager.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use fleet::{Delivery, Limits};
use http_api::GuardArgs;
use registry::{Cache, Registry, RegistryArgs};
use service::{
    settings::{self, MqttArgs, PayloadLimit, Settings, SettingsError, StateArgs},
    telemetry::LogArgs,
    transport::mqtt::Config,
};

/// Where what was pulled is kept, in the state directory.
const IMAGES: &str = "images";

/// Who gets modules out of registries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ImageDelivery {
    #[default]
    Proplet,
    Manager,
}

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
    #[command(flatten)]
    pub guard: GuardArgs,
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
    /// Who gets modules out of registries: proplets, or the manager, which hands them on by MQTT;
    /// to proplets that do not pull it always does
    #[arg(long, value_enum, default_value_t = ImageDelivery::Proplet)]
    pub image_delivery: ImageDelivery,
    #[command(flatten)]
    pub registry: RegistryArgs,
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
        self.guard.check(self.http_host)
    }
}

impl ManagerSettings {
    pub(crate) const fn http_address(&self) -> SocketAddr {
        SocketAddr::new(self.http_host, self.http_port)
    }

    pub(crate) fn upload_len_max(&self) -> usize {
        whole(self.upload_bytes_max)
    }

    /// The core's limits; `wire` is what goes over the broker at once.
    pub(crate) fn limits(&self, wire: settings::Limits) -> Limits {
        // A megabyte is what we send at once without need, not what nobody takes.
        let known = match self.mqtt.payload_bytes_max {
            PayloadLimit::Bytes(_) => true,
            PayloadLimit::Auto => !wire.fits(settings::Limits::default().message_bytes_max),
        };
        Limits {
            message_len_max: if known { wire.message_bytes_max } else { usize::MAX },
            chunk_len: wire.chunk_bytes,
            liveness: Duration::from_secs(self.liveness_s),
            proplets_max: whole(self.proplets_max),
            tasks_max: whole(self.tasks_max),
            federated_kept_max: whole(self.federated_kept_max),
            results_len_max: whole(self.results_bytes_max),
            files_len_max: whole(self.files_bytes_max),
            image_delivery: match self.image_delivery {
                ImageDelivery::Proplet => Delivery::Proplet,
                ImageDelivery::Manager => Delivery::Manager,
            },
            ..Limits::default()
        }
    }

    /// The registries, as this manager speaks to them.
    pub(crate) fn registries(&self) -> Registry {
        let dir = self.state.state_dir.join(IMAGES);
        Registry::new(self.registry.settings(), Some(Cache::new(dir, self.files_bytes_max)))
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
