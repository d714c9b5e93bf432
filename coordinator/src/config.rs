//! What an operator can tell the coordinator.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use aggregate::{NUM_SAMPLES_MAX, STRATEGIES, Strategy};
use http_api::GuardArgs;
use protocol::message::{
    ClipMode, ClipSpec, SESSION_START_LEN_MAX, StrategySpec, check_norm, check_share,
};
use round::{LazyRounds, PAYLOAD_LEN_MAX, Rules, check_strategy};
use service::{
    settings::{MqttArgs, Settings, SettingsError, StateArgs},
    telemetry::LogArgs,
    transport::mqtt::Config,
};

use crate::signatures::{Demand, Signatures, Unsigned};

/// Settings of the coordinator.
#[derive(Debug, clap::Args)]
pub struct CoordinatorSettings {
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
    #[arg(long, value_name = "PORT", default_value = "7071")]
    pub http_port: u16,
    #[command(flatten)]
    pub guard: GuardArgs,
    /// How updates become a model
    #[arg(long, value_name = "NAME", default_value = "fedavg", value_parser = strategy)]
    pub strategy: &'static Strategy,
    /// Greatest distance of an update from the base model, if the start of its round does not say,
    /// above 0; any by default
    #[arg(long, value_name = "NORM", value_parser = norm)]
    pub clip_norm: Option<f64>,
    /// What is done with an update that is farther away: clip or reject
    #[arg(long, value_name = "MODE", default_value = "clip", value_parser = mode)]
    pub clip_mode: ClipMode,
    /// Greatest share of all samples that one update counts for, if the start of its round does
    /// not say, above 0 and below 1; any by default
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub share_max: Option<f64>,
    /// Updates without which a round fails at its timeout, if its start does not say: 1 to 100000
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub min_updates: u64,
    /// Longest update that is taken, 1 to 268435456 bytes
    #[arg(long, value_name = "BYTES", default_value = "16777216", value_parser = clap::value_parser!(u64).range(1..=PAYLOAD_LEN_MAX as u64))]
    pub update_bytes_max: u64,
    /// Longest model that is made, 1 to 268435456 bytes; what the model server takes
    #[arg(long, value_name = "BYTES", default_value = "67108864", value_parser = clap::value_parser!(u64).range(1..=PAYLOAD_LEN_MAX as u64))]
    pub model_bytes_max: u64,
    /// Most samples that one update may claim, 1 to 2^53
    #[arg(long, value_name = "COUNT", default_value = "1000000000", value_parser = clap::value_parser!(u64).range(1..=NUM_SAMPLES_MAX))]
    pub samples_max: u64,
    /// Memory for the updates of all open rounds, in bytes, at least 1; above it, updates wait
    #[arg(long, value_name = "BYTES", default_value = "1073741824", value_parser = clap::value_parser!(u64).range(1..))]
    pub memory_bytes_max: u64,
    /// Longest update or model that goes in pieces, 1 to 2^40 bytes
    #[arg(long, value_name = "BYTES", default_value = "4294967296", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub piecewise_bytes_max: u64,
    /// Disk for updates and models that go in pieces, in bytes, at least 1; above it, updates wait
    #[arg(long, value_name = "BYTES", default_value = "68719476736", value_parser = clap::value_parser!(u64).range(1..))]
    pub blob_bytes_max: u64,
    /// Rounds open at once, 1 to 100000
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub rounds_open_max: u64,
    /// Seconds that an update waits for its round to be started, 0 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub unknown_round_grace_s: u64,
    /// Let the first update of a round that nobody has started open it: 3 updates, 60 seconds
    #[arg(long)]
    pub lazy_rounds: bool,
    /// Whose updates must be signed: off (nobody's), optional (of proplets with a key on the
    /// roster), required (everybody's)
    #[arg(long, value_name = "DEMAND", value_enum, default_value_t)]
    pub signatures: Demand,
}

impl Settings for CoordinatorSettings {
    const SERVICE: &'static str = "coordinator";
    const ABOUT: &'static str = "Runs rounds: collects updates, averages them, makes new models";

    fn check(&self) -> Result<(), SettingsError> {
        self.guard.check(self.http_host)?;
        self.signatures().map(drop)
    }
}

impl CoordinatorSettings {
    /// Whose signatures are checked, and by which keys.
    pub(crate) fn signatures(&self) -> Result<Signatures, SettingsError> {
        let unsigned = match self.signatures {
            Demand::Off => return Ok(Signatures::Ignored),
            Demand::Optional => Unsigned::Taken,
            Demand::Required => Unsigned::Refused,
        };
        let Some(roster) = self.guard.roster()? else {
            let takes = "off; anything else only together with roster_file, which has the keys";
            return Err(SettingsError::invalid("signatures", self.signatures, takes));
        };
        Ok(Signatures::Checked { unsigned, roster })
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules {
            update_len_max: whole(self.update_bytes_max),
            model_len_max: whole(self.model_bytes_max),
            blob_len_max: self.piecewise_bytes_max,
            samples_max: self.samples_max,
            updates_min: whole(self.min_updates),
            kept_len_max: self.memory_bytes_max,
            rounds_open_max: whole(self.rounds_open_max),
            unknown_grace: Duration::from_secs(self.unknown_round_grace_s),
            strategy: self.strategy.name,
            clip: self.clip_norm.map(|norm| ClipSpec { norm, mode: self.clip_mode }),
            share_max: self.share_max,
            lazy: if self.lazy_rounds { LazyRounds::On } else { LazyRounds::Off },
            ..Rules::default()
        }
    }

    pub(crate) const fn http_address(&self) -> SocketAddr {
        SocketAddr::new(self.http_host, self.http_port)
    }

    /// The core has a limit for each kind of message, so that whoever sent a longer one (an update,
    /// a start) hears what is wrong.
    pub(crate) fn transport(&self) -> Result<Config, SettingsError> {
        let mut config = self.mqtt.config(Self::SERVICE, None)?;
        config.payload_bytes_max = PAYLOAD_LEN_MAX;
        Ok(config)
    }

    /// Sessions speak for themselves, as any operator would.
    pub(crate) fn sessions_transport(&self) -> Result<Config, SettingsError> {
        let mut config = self.mqtt.config(Self::SERVICE, None)?;
        config.client_id.push_str("-sessions");
        config.payload_bytes_max = SESSION_START_LEN_MAX;
        Ok(config)
    }
}

fn strategy(name: &str) -> Result<&'static Strategy, String> {
    // Control variates are for rounds whose start asks for them: the tasks have to know.
    let usable = |strategy: &&Strategy| {
        let spec = spec(strategy.name);
        !spec.has_control() && check_strategy(&spec).is_ok()
    };
    aggregate::find(name).filter(usable).ok_or_else(|| {
        let names = STRATEGIES.iter().filter(usable).map(|strategy| strategy.name);
        format!("it takes {}", names.collect::<Vec<_>>().join(", "))
    })
}

fn host(text: &str) -> Result<IpAddr, std::net::AddrParseError> {
    match text {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        text => text.parse(),
    }
}

fn spec(name: &str) -> StrategySpec {
    StrategySpec { name: name.to_owned(), params: BTreeMap::new() }
}

fn norm(text: &str) -> Result<f64, String> {
    check_norm(text.parse().map_err(|_| "it takes a number above 0".to_owned())?)
}

fn share(text: &str) -> Result<f64, String> {
    check_share(text.parse().map_err(|_| "it takes a number above 0 and below 1".to_owned())?)
}

fn mode(text: &str) -> Result<ClipMode, String> {
    match text {
        "clip" => Ok(ClipMode::Clip),
        "reject" => Ok(ClipMode::Reject),
        _ => Err("it takes clip or reject".to_owned()),
    }
}

fn whole(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
