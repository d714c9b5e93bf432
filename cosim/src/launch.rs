//! Starts nodes, and sees to it that none of them outlives the run, whatever the way out.

mod janitor;
mod process;
mod run;
mod tcp;

pub mod docker;

use std::{io, path::PathBuf, time::Duration};

pub use janitor::janitor;
pub use process::{ProcessNode, Via};
pub use run::{RUN_VARIABLE, Run};
pub use tcp::connect;

use crate::channel::{Channel, ChannelError};

/// Tells a node where its orders come from: `stdio`, `unix:<path>`, `tcp:<address>` or `listen:<address>`.
pub const ENDPOINT_VARIABLE: &str = "AILERON_COSIM";

/// Holds a started node.
pub trait Keeper: Send {
    /// How the node ended, if it did or is just about to.
    fn fate(&mut self) -> Option<String>;
    /// Waits for the node's end, and after the grace brings it about; nothing of it is left then.
    fn stop(&mut self, grace: Duration);
}

/// A started node, ready for INIT.
pub struct Launched {
    pub channel: Channel,
    pub keeper: Option<Box<dyn Keeper>>,
}

impl std::fmt::Debug for Launched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launched").field("channel", &self.channel).finish_non_exhaustive()
    }
}

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("node {node}: cannot start {program:?}: {source}")]
    Start { node: String, program: String, source: io::Error },
    #[error("node {node} has no command")]
    NoCommand { node: String },
    #[error("node {node}: channel {found:?} should be stdio or unix")]
    UnknownChannel { node: String, found: String },
    #[error("node {node}: {source}")]
    Channel { node: String, source: ChannelError },
    #[error("node {node}: did not connect within {} ms{said}", limit.as_millis())]
    NoConnection { node: String, limit: Duration, said: String },
    #[error("the janitor, which ends what is left over, cannot start: {0}")]
    Janitor(io::Error),
    #[error("the run's directory {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("node {node}: {source}")]
    Docker { node: String, source: docker::DockerError },
}
