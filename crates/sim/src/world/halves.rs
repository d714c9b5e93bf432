//! A world in two halves that go on at the same time: the services with the broker, and the crowd
//! of everybody else.
//!
//! ```text
//!  services  |--- window ---|--- window ---|     each as if it were alone, on a thread of its own;
//!                  \  /             \  /         what they cause in one another comes after the
//!  crowd     |--- window ---|--- window ---|     window, since no packet is faster than it is long
//! ```
//!
//! Every event keeps the place that it has in the whole world, and the trace is woven together out
//! of both, so that nobody can tell from a history whether it was made in halves. That holds while
//! connections do not break, and where nobody looks on; other worlds are run whole.

use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, Builder, Scope},
};

use protocol::Envelope;

use super::{Event, Progress, RunError, State, World, build::FIRST, peers::Peers, watch::Watcher};
use crate::{
    Stop, Wants,
    broker::{Answer, Broker, Weather},
    queue::{Class, Key},
    role::last_will,
    scenario::SESSIONS,
    world::build::{BROKER, OPERATOR},
};

/// Which part of the world this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Services,
    Crowd,
}

/// What one half has caused in the other.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    events: Vec<(Key, Event)>,
    acks: Vec<Ack>,
    /// When the operator hears something.
    told_us: VecDeque<u64>,
}

/// A node has dealt with what it was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ack {
    pub(super) node: u32,
    pub(super) conn: u32,
    pub(super) pid: u64,
    /// When the broker will know.
    pub(super) at_us: u64,
}

/// A thread that runs the crowd while the services run here.
struct Beside {
    begin: SyncSender<(Box<World>, u64)>,
    ended: Receiver<Box<World>>,
}

/// Fewer nodes than this do not make up for the threads' waiting for one another.
const NODES_MIN: usize = 200;
/// Nor do windows that are shorter than this.
const AHEAD_US_MIN: u64 = 1_000;
/// A session has one look in the queue at most, which comes after what arrives at its time.
const LOOK_SEQ: u64 = u64::MAX;

impl Part {
    const fn holds(self, node: u32) -> bool {
        match self {
            Self::Whole => true,
            Self::Services => node < FIRST,
            Self::Crowd => node >= FIRST,
        }
    }
}

impl Event {
    /// Where it happens.
    const fn place(&self) -> u32 {
        match self {
            Self::Blow(_) | Self::ToBroker { .. } | Self::Pump(_) | Self::Silence { .. } => BROKER,
            Self::ToNode { node, .. }
            | Self::Connect { node, .. }
            | Self::Mail { node, .. }
            | Self::TaskEnd { node, .. }
            | Self::Wake(node)
            | Self::Heard { node, .. } => *node,
        }
    }
}

impl Beside {
    fn start<'scope>(scope: &'scope Scope<'scope, '_>) -> Option<Self> {
        let (begin, begins) = sync_channel::<(Box<World>, u64)>(1);
        let (end, ended) = sync_channel(1);
        let run = move || {
            for (mut crowd, end_us) in begins {
                crowd.run_before(end_us);
                if end.send(crowd).is_err() {
                    return;
                }
            }
        };
        Builder::new().name("crowd".to_owned()).spawn_scoped(scope, run).ok()?;
        Some(Self { begin, ended })
    }
}

impl World {
    /// Puts an event that happens at `node` where it belongs.
    pub(super) fn cause(
        &mut self,
        node: u32,
        (time_us, class, source): (u64, Class, u32),
        event: Event,
    ) {
        let seq = self.queue.next_seq(source);
        let key = Key { time_us, class, source, seq };
        if self.part == Part::Services && node == OPERATOR {
            self.outbox.told_us.push_back(time_us);
        }
        if self.part.holds(node) {
            self.queue.push_as(key, event);
        } else {
            self.outbox.events.push((key, event));
        }
    }

    /// Has the broker look at a session again.
    pub(super) fn look_at(&mut self, node: u32, time_us: u64) {
        let key = Key { time_us, class: Class::Broker, source: node, seq: LOOK_SEQ };
        self.queue.push_as(key, Event::Pump(node));
    }

    /// A node acknowledges what it was sent.
    pub(super) fn acknowledge(&mut self, ack: Ack) {
        if self.part == Part::Crowd {
            return self.outbox.acks.push(ack);
        }
        let Ack { node, conn, pid, at_us } = ack;
        if let Some(at_us) = self.broker.acknowledge((node, conn), pid, at_us) {
            self.look_at(node, at_us);
        }
    }

    /// What the broker says in this node's name when it is gone.
    pub(super) fn will(&self, node: u32) -> Option<Envelope> {
        if self.part.holds(node) {
            return self.nodes[node].role.will();
        }
        // There are only proplets in the crowd.
        self.network.name(node).parse().ok().map(last_will)
    }

    /// How long a window of halves can be, if this world can be run in halves.
    pub(super) fn lookahead_us(&self) -> Option<u64> {
        let divisible = self.weather == Weather::Calm
            && self.wants == Wants::Nothing
            && self.nodes.len() >= NODES_MIN
            // There are only proplets in the crowd.
            && self.network.name(FIRST) != SESSIONS
            && self.tasks.leave_threads();
        let ahead_us = divisible.then(|| self.network.apart_us(OPERATOR, FIRST)).flatten();
        // A device whose battery is empty is missed by the broker without a packet.
        let ahead_us = ahead_us.map(|us| us.min(self.silence_us().unwrap_or(u64::MAX)));
        ahead_us.filter(|us| *us >= AHEAD_US_MIN)
    }

    /// Runs to the end, as [`World::live`] does.
    pub(super) fn live_in_halves(
        &mut self,
        ahead_us: u64,
        progress: &mut dyn Progress,
    ) -> Result<(), RunError> {
        let mut crowd = Some(Box::new(self.divide()));
        let ended = thread::scope(|scope| {
            let beside = Beside::start(scope);
            self.in_windows(&mut crowd, ahead_us, (beside.as_ref(), progress))
        });
        self.unite(*crowd.expect("it came back after the last window"));
        ended
    }

    fn in_windows(
        &mut self,
        place: &mut Option<Box<Self>>,
        ahead_us: u64,
        (beside, progress): (Option<&Beside>, &mut dyn Progress),
    ) -> Result<(), RunError> {
        let mut word_us = 0;
        loop {
            let crowd = place.as_mut().expect("it is here between windows");
            let next = [&self.queue, &crowd.queue].into_iter().filter_map(|queue| queue.next_us());
            let Some(next_us) = next.min().filter(|at| *at <= self.until_us) else {
                self.now_us = self.until_us;
                return Ok(());
            };
            if next_us >= word_us {
                word_us = next_us.saturating_add(progress.grain_us());
                let events = self.events + crowd.events;
                if !progress.advance(next_us, &State { events, ..self.state() }) {
                    return Err(RunError::Stopped { at_us: self.now_us.max(crowd.now_us) });
                }
            }
            let end_us = next_us.saturating_add(ahead_us).min(self.until_us.saturating_add(1));
            if self.operator_hears(next_us, end_us) {
                let done = self.in_turns(crowd, end_us);
                self.chain.weave(&mut crowd.chain);
                if done {
                    return Ok(());
                }
                continue;
            }
            self.at_once(place, end_us, beside);
        }
    }

    /// Whether the operator hears something in this window: that could be the end of the run.
    fn operator_hears(&mut self, from_us: u64, end_us: u64) -> bool {
        let told_us = &mut self.outbox.told_us;
        while told_us.front().is_some_and(|at| *at < from_us) {
            told_us.pop_front();
        }
        told_us.front().is_some_and(|at| *at < end_us)
    }

    /// A window of both halves at the same time.
    fn at_once(&mut self, place: &mut Option<Box<Self>>, end_us: u64, beside: Option<&Beside>) {
        let mut crowd = place.take().expect("it is here between windows");
        let mut crowd = match beside {
            Some(Beside { begin, ended }) => {
                begin.send((crowd, end_us)).expect("the thread waits for the crowd");
                self.run_before(end_us);
                ended.recv().expect("the crowd comes back")
            }
            None => {
                crowd.run_before(end_us);
                self.run_before(end_us);
                crowd
            }
        };
        for (key, _) in self.outbox.events.iter().chain(&crowd.outbox.events) {
            assert!(key.time_us >= end_us, "no packet is faster than a window is long");
        }
        self.exchange(&mut crowd);
        self.chain.weave(&mut crowd.chain);
        *place = Some(crowd);
    }

    fn run_before(&mut self, end_us: u64) {
        while self.queue.next_us().is_some_and(|at| at < end_us) {
            self.next_event();
        }
    }

    /// A window event by event; whether the run has come to its end.
    fn in_turns(&mut self, crowd: &mut Self, end_us: u64) -> bool {
        loop {
            let (own, other) = (self.queue.next_key(), crowd.queue.next_key());
            let Some(next) = own.into_iter().chain(other).min() else { return false };
            if next.time_us >= end_us {
                return false;
            }
            if own == Some(next) {
                self.next_event();
            } else {
                crowd.next_event();
            }
            self.exchange(crowd);
            if self.stop == Stop::AfterRounds && self.is_done() {
                return true;
            }
        }
    }

    /// Each half is given what the other has caused in it.
    fn exchange(&mut self, crowd: &mut Self) {
        for (key, event) in self.outbox.events.drain(..) {
            crowd.queue.push_as(key, event);
        }
        for (key, event) in crowd.outbox.events.drain(..) {
            self.queue.push_as(key, event);
        }
        for ack in crowd.outbox.acks.drain(..) {
            self.acknowledge(ack);
        }
    }

    /// Takes the crowd out.
    fn divide(&mut self) -> Self {
        self.part = Part::Services;
        Self {
            nodes: self.nodes.take_crowd(),
            queue: self.queue.divide(|event| event.place() >= FIRST),
            network: self.network.divide(FIRST),
            broker: Broker::none(),
            tasks: self.tasks.take(),
            peers: Peers::default(),
            watcher: Watcher::new(None),
            chain: self.chain.divide(),
            traced: vec![],
            key: None,
            events: 0,
            acts: vec![],
            answer: Answer::default(),
            topic: String::new(),
            sent_us: None,
            part: Part::Crowd,
            outbox: Outbox::default(),
            seed: self.seed,
            until_us: self.until_us,
            stop: self.stop,
            epoch_us: self.epoch_us,
            keep_alive_us: self.keep_alive_us,
            reconnect: self.reconnect,
            wants: self.wants,
            weather: self.weather,
            now_us: self.now_us,
        }
    }

    /// Takes the crowd back, with what it has come to.
    fn unite(&mut self, mut crowd: Self) {
        self.part = Part::Whole;
        self.nodes.join(&mut crowd.nodes);
        self.network.join(&mut crowd.network);
        self.chain.join(&mut crowd.chain);
        self.events += crowd.events;
    }
}
