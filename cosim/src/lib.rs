//! The co-simulation endpoint: lines to and from nodes outside of this process.

pub mod channel;
pub mod harness;
pub mod launch;
pub mod node;
pub mod peer;
pub mod plot;
pub mod scenario;
pub mod sweep;
pub mod trace;
pub mod wire;
