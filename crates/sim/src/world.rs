//! The world: every node, one queue of events, and virtual time.

mod alarm;
mod build;
mod connections;
mod faults;
mod halves;
mod nodes;
mod packets;
mod peers;
mod plan;
mod run;
mod steps;
mod tasks;
mod watch;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use protocol::message::Model;

use crate::{
    Behaviour, Device, Dice, Peer, PeerError, PeerEvent, Problem, Summary, TraceEvent, Wants,
    Workload,
    broker::{Answer, Broker, Message, Want, Weather},
    client::Client,
    clock::Clock,
    fault::Blow,
    network::Network,
    queue::{Key, Queue},
    role::{Acts, Mail, Role},
    trace::Chain,
};

use self::{
    alarm::Alarm,
    halves::{Outbox, Part},
    nodes::Nodes,
    peers::Peers,
    tasks::{Running, Tasks},
    watch::Watcher,
};

/// What a world needs beside its scenario.
pub struct Setup {
    pub workload: Arc<dyn Workload>,
    /// By node, for every node of the scenario that is outside.
    pub peers: BTreeMap<String, Box<dyn Peer>>,
    /// Version 0 as it travels.
    pub model0: Bytes,
    /// Device classes that are known beside the scenario's own.
    pub classes: BTreeMap<String, Device>,
    /// Judges every model that is published.
    pub judge: Option<Box<dyn Judge>>,
}

/// What a model is worth, in numbers by name.
pub trait Judge: Send {
    fn judge(&mut self, model: &Model) -> BTreeMap<String, f64>;
}

/// Is told how far a run has come, and may hold it up or end it.
pub trait Progress {
    /// How much virtual time may pass between two words, in microseconds.
    fn grain_us(&self) -> u64 {
        100_000
    }

    /// Virtual time is about to reach `next_us`. `false` ends the run.
    fn advance(&mut self, next_us: u64, state: &State) -> bool;
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub until_us: u64,
    /// Events of the queue that were dealt with.
    pub events: u64,
    pub rounds_ended: usize,
    pub rounds: usize,
}

/// Nobody is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn grain_us(&self) -> u64 {
        u64::MAX
    }

    fn advance(&mut self, _next_us: u64, _state: &State) -> bool {
        true
    }
}

/// Why there is no world.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    #[error("the scenario has {} problems, the first: {}", .0.len(), .0[0])]
    Problems(Vec<Problem>),
    #[error("model 0 is not a model: {0}")]
    Model(String),
    #[error("model 0 says that it is version {0}")]
    Version(u64),
    #[error("node {0} is outside, and nobody speaks for it")]
    NoPeer(String),
}

/// Why a run ended before its time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("stopped at {at_us} us of virtual time")]
    Stopped { at_us: u64 },
}

/// A world that is ready to run.
pub struct World {
    seed: u64,
    until_us: u64,
    stop: crate::Stop,
    epoch_us: u64,
    nodes: Nodes,
    queue: Queue<Event>,
    network: Network,
    broker: Broker,
    keep_alive_us: u64,
    reconnect: crate::Span,
    tasks: Tasks,
    peers: Peers,
    watcher: Watcher,
    chain: Chain,
    wants: Wants,
    /// Trace events that the sink has not been given yet.
    traced: Vec<TraceEvent>,
    /// Whether anything can break a connection, so that what was said has to be remembered.
    weather: Weather,
    now_us: u64,
    key: Option<Key>,
    events: u64,
    acts: Acts,
    /// For what the broker answers, again and again.
    answer: Answer,
    /// For the text of a topic, again and again.
    topic: String,
    /// When what is being sent was sent, if that was not now.
    sent_us: Option<u64>,
    part: Part,
    /// What concerns the other part.
    outbox: Outbox,
}

/// A node and everything around it.
#[derive(Debug)]
struct Node {
    name: Arc<str>,
    role: Role,
    client: Client,
    clock: Clock,
    device: Arc<Device>,
    fidelity: Arc<str>,
    data: Option<Arc<str>>,
    seed: u64,
    /// Counts processes; even while there is none.
    life: u32,
    alive: bool,
    alarm: Alarm,
    running: Vec<Running>,
    ticked_us: u64,
    pace: f64,
    lie: Option<Behaviour>,
    dice: Dice,
    energy_j: f64,
}

/// What happens.
#[derive(Debug)]
enum Event {
    Blow(Box<Blow>),
    ToBroker {
        node: u32,
        conn: u32,
        packet: Up,
    },
    ToNode {
        node: u32,
        conn: u32,
        packet: Down,
    },
    /// More may be sent to this session.
    Pump(u32),
    /// Nothing was heard from this connection for too long.
    Silence {
        node: u32,
        conn: u32,
    },
    Connect {
        node: u32,
        life: u32,
    },
    Mail {
        node: u32,
        life: u32,
        mail: Box<Mail>,
    },
    TaskEnd {
        node: u32,
        token: u64,
        end: Box<tasks::End>,
    },
    Wake(u32),
    /// A node outside hears this.
    Heard {
        node: u32,
        event: Box<PeerEvent>,
    },
}

/// A packet to the broker.
#[derive(Debug)]
enum Up {
    Connect,
    Subscribe(Box<Want>),
    Unsubscribe(Box<Want>),
    Publish(Arc<Message>),
    /// The connection was closed from the other end.
    Gone,
}

/// A packet from the broker.
#[derive(Debug)]
enum Down {
    Accepted { resumed: bool },
    Publish { pid: u64, message: Arc<Message>, duplicate: bool },
    Gone,
}

impl World {
    fn node(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node]
    }

    /// When what is being sent leaves.
    fn sending_us(&self) -> u64 {
        self.sent_us.unwrap_or(self.now_us)
    }

    /// Has everything written down that [`World::evidence`] needs, from now on: it takes memory for
    /// every update of every round.
    pub const fn gather_evidence(&mut self) {
        self.watcher.gather();
    }

    /// What the run left behind, for properties, if it was gathered.
    pub fn evidence(&self) -> crate::Evidence {
        self.watcher.evidence(self)
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World({} nodes at {} us)", self.nodes.len(), self.now_us)
    }
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Setup({} peers)", self.peers.len())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.peers.shutdown();
    }
}

impl World {
    /// Runs to the end. The summary and the trace depend on scenario, seed, model, workload and
    /// peers, and on nothing else.
    pub fn run(
        &mut self,
        sink: &mut dyn crate::TraceSink,
        progress: &mut dyn Progress,
    ) -> Result<Summary, RunError> {
        self.wants = sink.wants();
        let ended = self.live(sink, progress);
        self.peers.shutdown();
        self.chain.settle();
        ended.map(|()| self.summary())
    }
}
