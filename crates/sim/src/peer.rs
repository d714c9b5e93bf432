//! Nodes whose behaviour is outside: processes, containers, firmware. They are told to advance,
//! and answer with what they did.

use serde::{Deserialize, Serialize};

/// One outside node. Every call gives the same answer to the same history, or the run is not
/// deterministic.
pub trait Peer: Send {
    /// Has the node advance to `to_us` with what comes in until then; does not wait.
    fn begin(&mut self, to_us: u64, events: Vec<PeerEvent>) -> Result<(), PeerError>;

    /// Waits until the node has advanced.
    fn finish(&mut self) -> Result<Done, PeerError>;

    /// Ends the node; called once, on every way out.
    fn shutdown(&mut self);
}

/// What a node did while it advanced.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Done {
    /// When it next has something to do of its own accord. `None`: it does not say, and is
    /// advanced in small steps. A node that only waits says `u64::MAX`.
    pub next_us: Option<u64>,
    pub events: Vec<PeerEvent>,
}

/// Something that one node sends to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerEvent {
    pub time_us: u64,
    #[serde(rename = "type")]
    pub kind: String,
    pub src: String,
    /// Empty: for nobody but the trace.
    pub dst: String,
    #[serde(default)]
    pub payload: serde_json::Value,
    #[serde(default)]
    pub size_bytes: u64,
}

impl PeerEvent {
    /// To the broker: `{topic, payload, retain?}`.
    pub const PUBLISH: &str = "mqtt_publish";
    /// To the broker: `{filter}`.
    pub const SUBSCRIBE: &str = "mqtt_subscribe";
    /// To the broker: `{filter}`.
    pub const UNSUBSCRIBE: &str = "mqtt_unsubscribe";
    /// From the broker: `{topic, payload, retain}`; a payload that is not text is
    /// `{"base64": ...}`.
    pub const MESSAGE: &str = "mqtt_message";
    /// The broker's name among nodes.
    pub const BROKER: &str = "broker";
}

/// A node broke the protocol, or broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {node} at {time_us} us: {what}{}", .line.as_ref().map(|line| format!(" (line: {line})")).unwrap_or_default())]
pub struct PeerError {
    pub node: String,
    pub time_us: u64,
    /// The line that was wrong, shortened.
    pub line: Option<String>,
    pub what: String,
}
