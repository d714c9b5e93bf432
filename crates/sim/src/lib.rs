//! Virtual time: the real cores, the real aggregation and a virtual broker in one process, driven
//! by one queue of events. One seed, one history.
//!
//! ```text
//!  Scenario --> World::new --> run:  queue --pop--> node: Machine::step(its clock)
//!                                      ^              |  keep, promise -> its disk
//!                                      |              |  publish -> network -> broker -> network
//!                                      +--------------+  effect -> workload, average, files
//! ```
//!
//! Events are totally ordered by time, class, source and sequence; randomness is drawn by seed,
//! node and purpose. It refuses to know sockets, files, wall clocks and what guests compute.

mod assertion;
mod broker;
mod client;
mod clock;
mod device;
mod dice;
mod fault;
mod host;
mod network;
mod peer;
mod property;
mod queue;
mod role;
mod scenario;
mod span;
mod summary;
mod swarm;
mod trace;
mod workload;
mod world;

pub use assertion::{Assertion, AssertionError, Checked};
pub use device::{DEVICES_YAML, Device, Slowdown};
pub use dice::Dice;
pub use fault::{
    Behaviour, Byzantine, Cut, FAULTS, Fault, FaultKind, Kill, Memory, Restart, Scope, Slow,
};
pub use peer::{Done, Peer, PeerError, PeerEvent};
pub use property::{Evidence, PROPERTIES, Property, RoundEvidence};
pub use scenario::{
    Availability, BrokerSpec, ClockSpec, ClockStep, DockerSpec, LinkRule, LinkSpec, NetworkModel,
    NetworkSpec, NodeDialect, NodeKind, NodeSpec, OnFailure, Participants, PlatformSpec, Problem,
    ProcessSpec, RoundModel, RoundSpec, Scenario, SessionSpec, SharedMedium, Simulation, Stop,
    TcpSpec,
};
pub use span::{Span, SpanError};
pub use summary::{RoundEnd, RoundOutcome, RoundSummary, Sample, Summary};
pub use swarm::{Failure, Plan, Replay, Swarm, SwarmReport};
pub use trace::{Direction, NoTrace, Packet, TraceEvent, TraceSink, Wants};
pub use workload::{Cost, Job, OneHot, Ran, Timed, Workload};
pub use world::{Judge, NoProgress, Progress, RunError, Setup, SetupError, State, World};
