//! Why an embedded broker did not start.

use crate::config::{PACKET_BYTES_MAX, PACKET_BYTES_MIN};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why an embedded broker did not start; nothing is left running and no port open.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address is reachable from outside and nobody said that it may be.
    #[error(
        "broker address {address} is not loopback, and nobody guards it: give the broker a roster, or \
         tell it to be open to the network"
    )]
    NotLoopback { address: SocketAddr },
    /// The packet limit is one that MQTT or the implementation cannot hold.
    #[error(
        "broker packet limit of {given_bytes} bytes: must be {PACKET_BYTES_MIN} to {PACKET_BYTES_MAX}"
    )]
    PacketLimit { given_bytes: usize },
    /// A queue of nothing would lose every message to an absent client.
    #[error(
        "broker queue of {messages} messages and {bytes} bytes a client: both must be at least 1"
    )]
    QueueLimit { messages: usize, bytes: usize },
    /// The address cannot be listened on: in use, not of this machine, or not permitted.
    #[error("broker cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    /// The state directory cannot be used: not writable, in use, or of another version.
    #[error("broker cannot keep its state in {}: {reason}", dir.display())]
    StateDir { dir: PathBuf, reason: String },
    /// This implementation keeps nothing on disk.
    #[error("broker {kind} keeps nothing on disk, so it cannot use the state directory {}", dir.display())]
    StateDirUnsupported { kind: crate::Kind, dir: PathBuf },
    /// Certificate, key or authority cannot be used.
    #[error("broker cannot use {}: {reason}", path.display())]
    Tls { path: PathBuf, reason: String },
    /// This implementation has neither encryption nor a guard.
    #[error("broker {kind} has neither encryption nor access rules; use mqtt5")]
    GateUnsupported { kind: crate::Kind },
    /// The implementation refused for a reason of its own.
    #[error("broker on {address} did not start: {reason}")]
    Start { address: SocketAddr, reason: String },
    /// The system gave no threads.
    #[error("broker got no threads to run on: {source}")]
    Threads { source: std::io::Error },
}
