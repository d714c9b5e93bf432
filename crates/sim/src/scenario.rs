//! A scenario: who takes part, over what network, on what devices, and what happens. Read from
//! data by the caller; checked by [`Scenario::problems`].

mod check;
mod network;
mod node;
mod platform;
mod round;
mod session;

use std::collections::BTreeMap;

use protocol::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Device, Fault, Span};

pub use self::session::SessionSpec;
pub use check::Problem;
pub(crate) use check::{SERVICES, SESSIONS};
pub(crate) use network::fits;
pub use network::{LinkRule, LinkSpec, NetworkModel, NetworkSpec, SharedMedium};
pub use node::{
    Availability, ClockSpec, ClockStep, DockerSpec, NodeDialect, NodeKind, NodeSpec, OnFailure,
    ProcessSpec, TcpSpec,
};
pub use platform::{BrokerSpec, PlatformSpec};
pub use round::{Participants, RoundModel, RoundSpec};

/// One story.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub simulation: Simulation,
    #[serde(default)]
    pub platform: PlatformSpec,
    #[serde(default)]
    pub network: NetworkSpec,
    /// Classes of devices by name, beside those that are built in.
    #[serde(default)]
    pub devices: BTreeMap<String, Device>,
    #[serde(default)]
    pub nodes: Vec<NodeSpec>,
    #[serde(default)]
    pub rounds: Vec<RoundSpec>,
    /// Sessions, beside the rounds or in their place.
    #[serde(default)]
    pub sessions: Vec<SessionSpec>,
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// What must hold at the end, like `accuracy >= 0.9 by 60s`.
    #[serde(default)]
    pub assertions: Vec<String>,
}

/// How the run goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Simulation {
    pub seed: u64,
    /// Virtual time at which the run ends at the latest.
    pub until: Span,
    pub stop: Stop,
    /// What every clock shows at virtual time 0, before its offset.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub epoch: Timestamp,
    /// Threads that run workloads; results do not depend on it.
    pub threads: usize,
    /// How far outside nodes are advanced at a time that do not say when they have something to
    /// do, where their links have no latency to go by.
    pub quantum: Span,
}

/// When a run has seen enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Once every round and session has ended; without any, at the end of time.
    #[default]
    AfterRounds,
    AtEnd,
}

/// 2026-01-01T00:00:00Z.
const EPOCH: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

impl Default for Simulation {
    fn default() -> Self {
        Self {
            seed: 0,
            until: Span::secs(3_600),
            stop: Stop::default(),
            epoch: EPOCH,
            threads: 1,
            quantum: Span::millis(10),
        }
    }
}
