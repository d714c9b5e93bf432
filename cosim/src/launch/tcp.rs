//! Nodes that somebody else has started, and that listen on TCP.

use std::time::Duration;

use super::{LaunchError, Launched};
use crate::channel::Channel;

/// Connects to a node, trying again until it listens or the limit is over.
pub fn connect(node: &str, address: &str, limit: Duration) -> Result<Launched, LaunchError> {
    let channel = Channel::to_tcp(address, limit)
        .map_err(|source| LaunchError::Channel { node: node.to_owned(), source })?;
    Ok(Launched { channel, keeper: None })
}
