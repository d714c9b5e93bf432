//! How the platform's own components are set up in a scenario.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Span;

/// Settings of manager, coordinator, model server, proplets and broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PlatformSpec {
    /// Device classes of the services.
    pub server_device: String,
    /// How often proplets say that they are alive.
    pub alive_every: Span,
    /// How often proplets publish their metrics; never by default.
    pub metrics_every: Option<Span>,
    /// How long a proplet waits for its base model.
    pub model_wait: Span,
    /// Silence after which the manager counts a proplet as offline.
    pub liveness: Span,
    /// Tasks at once on one proplet.
    pub concurrency: usize,
    /// Results of ended tasks that a proplet keeps.
    pub results_kept: usize,
    /// Tasks of ended rounds that the manager keeps.
    pub tasks_kept: usize,
    /// Updates without which a closing round fails.
    pub updates_min: usize,
    /// How updates are aggregated.
    pub strategy: String,
    /// What one weight of one update costs the coordinator.
    pub aggregate_ns_per_weight: f64,
    /// What a write costs the model server.
    pub model_write: Span,
    /// Proplets connect at random times within this span.
    pub connect_spread: Span,
    pub broker: BrokerSpec,
}

/// The virtual broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerSpec {
    /// Messages to one session under way without an acknowledgement.
    pub inflight_max: usize,
    /// Messages that wait for one session; more are dropped.
    pub queued_max: usize,
    /// Clients that are silent for one and a half times this are gone; 0 lets them be silent for
    /// ever, as in MQTT.
    pub keep_alive: Span,
    /// The shortest wait before a client connects again; it doubles up to thirty times this.
    pub reconnect: Span,
}

impl Default for PlatformSpec {
    fn default() -> Self {
        Self {
            server_device: "x86".to_owned(),
            alive_every: Span::secs(10),
            metrics_every: None,
            model_wait: Span::secs(30),
            liveness: Span::secs(30),
            concurrency: 1,
            results_kept: 256,
            tasks_kept: 10_000,
            updates_min: 1,
            strategy: "fedavg".to_owned(),
            aggregate_ns_per_weight: 20.0,
            model_write: Span::millis(5),
            connect_spread: Span::millis(500),
            broker: BrokerSpec::default(),
        }
    }
}

impl Default for BrokerSpec {
    fn default() -> Self {
        Self {
            inflight_max: 100,
            queued_max: 200_000,
            keep_alive: Span::secs(30),
            reconnect: Span::secs(1),
        }
    }
}
