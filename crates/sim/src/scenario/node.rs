//! The nodes of a scenario. Manager, coordinator, model server, operator and broker are always
//! there, under these names, and need no line.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Span;

/// One node, or `count` alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSpec {
    /// With `count`, the nodes are called `{id}-0`, `{id}-1`, ...
    pub id: String,
    #[serde(rename = "type")]
    pub kind: NodeKind,
    pub count: Option<u32>,
    /// A class of devices.
    pub device: Option<String>,
    /// How tasks are run: `model`, `memo`, `wasm`, `container`, `paced`, or what else the caller
    /// knows.
    pub fidelity: Option<String>,
    /// The node's data, as the workload understands it; `{i}` stands for the number among alike.
    pub data: Option<String>,
    pub availability: Option<Availability>,
    pub clock: ClockSpec,
    pub on_failure: OnFailure,
    /// How an outside node spells the protocol.
    pub dialect: NodeDialect,
    /// The longest window that an outside node is given as long as it does not say when it acts
    /// next; the latency of its links by default.
    pub step: Option<Span>,
    /// What an outside node is told of itself at INIT, as it understands it.
    pub config: Map<String, Value>,
    /// The node itself, or what computes the tasks of a proplet of `container` fidelity; so the next
    /// two.
    pub process: Option<ProcessSpec>,
    pub docker: Option<DockerSpec>,
    pub tcp: Option<TcpSpec>,
}

/// What a node is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// The real agent, in this process.
    #[default]
    Proplet,
    /// A program that speaks the co-simulation protocol.
    Process,
    /// The same in a container.
    Docker,
    /// The same at the end of a TCP connection.
    Tcp,
}

/// How an outside node spells the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeDialect {
    /// One JSON object on each line.
    #[default]
    Json,
    /// Words, as the nodes of xEdgeSim speak over TCP.
    PlainTcp,
    /// Words, as they speak over pipes.
    PlainStdio,
}

/// What happens if an outside node fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The run ends with an error.
    #[default]
    Stop,
    /// The run goes on without the node.
    GoOn,
}

/// When a node is there at all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Availability {
    /// On, then off, over and over, beginning `phase` into it; `spread` moves each node's phase
    /// by a random part of it.
    Cycle {
        on: Span,
        off: Span,
        #[serde(default)]
        phase: Span,
        #[serde(default)]
        spread: Span,
    },
    /// Exponentially distributed times of presence and absence.
    Churn { mean_up: Span, mean_down: Span },
}

/// How a node's clock differs from virtual time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClockSpec {
    pub offset_us: i64,
    pub drift_ppm: f64,
    pub steps: Vec<ClockStep>,
}

/// A jump of a node's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClockStep {
    pub at: Span,
    pub by_us: i64,
}

/// A program to start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessSpec {
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub directory: Option<String>,
    /// `stdio` or `unix`.
    pub channel: Option<String>,
}

/// A container to start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DockerSpec {
    pub image: Option<String>,
    pub build_context: Option<String>,
    pub dockerfile: Option<String>,
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub volumes: Vec<String>,
    pub ports: Vec<String>,
    pub network: Option<String>,
    pub memory_mb: Option<u64>,
    pub cpus: Option<f64>,
    /// `unix` or `stdio`.
    pub channel: Option<String>,
}

/// A node that listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TcpSpec {
    /// `host:port`; port 0 if the command says on stderr where it listens: `listening on <address>`.
    pub address: String,
    /// Started before connecting, if given, with `AILERON_COSIM=listen:<address>`.
    pub command: Vec<String>,
}

impl NodeSpec {
    /// The names of the nodes that this line stands for.
    pub fn names(&self) -> Vec<String> {
        match self.count {
            None => vec![self.id.clone()],
            Some(count) => (0..count).map(|i| format!("{}-{i}", self.id)).collect(),
        }
    }
}
