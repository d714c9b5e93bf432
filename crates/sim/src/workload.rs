//! What proplets compute: handed in by whoever can run it, or one of those that need no guest.

mod one_hot;
mod timed;

use std::sync::Arc;

use agent::Variates;
use bytes::Bytes;
use protocol::{Timestamp, message::TaskStart};

use crate::Device;

pub use one_hot::OneHot;
pub use timed::Timed;

/// Runs the tasks of proplets.
pub trait Workload: Send + Sync {
    /// Pure: the same job gives the same result, whatever the thread.
    fn run(&self, job: &Job) -> Ran;

    /// Whether jobs are worth handing to threads.
    fn cost(&self) -> Cost {
        Cost::Slow
    }
}

/// How long a job takes on the machine that simulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// A few microseconds: threads would only be in the way.
    Cheap,
    Slow,
}

/// One run of a task on one proplet.
#[derive(Clone, Debug)]
pub struct Job {
    /// The node's name.
    pub node: Arc<str>,
    /// How the node is simulated, as the scenario says (`model`, `memo`, `wasm`).
    pub fidelity: Arc<str>,
    /// The node's data, as the scenario says.
    pub data: Option<Arc<str>>,
    pub start: TaskStart,
    /// The base model as it travels.
    pub model: Option<Bytes>,
    /// What stands beside it in a round with control variates.
    pub variates: Option<Box<Variates>>,
    /// Differs from task to task, attempt to attempt and node to node.
    pub seed: u64,
    /// The node's own clock.
    pub now: Timestamp,
    pub device: Arc<Device>,
}

/// What came of a job.
#[derive(Clone, Debug)]
pub struct Ran {
    pub outcome: agent::Outcome,
    /// On the job's device; what the device needs to begin a task comes on top.
    pub compute_us: u64,
    /// What the guest burned, where that is known.
    pub fuel: Option<u64>,
}
