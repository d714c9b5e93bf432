//! What an operator can tell the coordinator.

use std::{path::PathBuf, time::Duration};

use access::LiveRoster;
use aggregate::{NUM_SAMPLES_MAX, STRATEGIES, Strategy};
use protocol::message::SESSION_START_LEN_MAX;
use round::{LazyRounds, PAYLOAD_LEN_MAX, Rules};
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
    /// How updates become a model
    #[arg(long, value_name = "NAME", default_value = "fedavg", value_parser = strategy)]
    pub strategy: &'static Strategy,
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
    /// Roster with the proplets' public keys, from `aileron token`
    #[arg(long, value_name = "FILE")]
    pub roster_file: Option<PathBuf>,
}

impl Settings for CoordinatorSettings {
    const SERVICE: &'static str = "coordinator";
    const ABOUT: &'static str = "Runs rounds: collects updates, averages them, makes new models";

    fn check(&self) -> Result<(), SettingsError> {
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
        let Some(path) = &self.roster_file else {
            let takes = "off; anything else only together with roster_file, which has the keys";
            return Err(SettingsError::invalid("signatures", self.signatures, takes));
        };
        let roster = LiveRoster::open(path).map_err(|why| {
            let takes = format!("a roster as `aileron token` writes it ({why})");
            SettingsError::invalid("roster_file", path.display(), takes)
        })?;
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
            lazy: if self.lazy_rounds { LazyRounds::On } else { LazyRounds::Off },
        }
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

/// Those that step from round to round need a memory of their own, which rounds do not keep yet.
fn strategy(name: &str) -> Result<&'static Strategy, String> {
    let found = aggregate::find(name).filter(|strategy| strategy.vectors.is_empty());
    found.ok_or_else(|| {
        let names: Vec<&str> = STRATEGIES
            .iter()
            .filter(|strategy| strategy.vectors.is_empty())
            .map(|strategy| strategy.name)
            .collect();
        format!("it takes {}", names.join(", "))
    })
}

fn whole(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
