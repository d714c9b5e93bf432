//! The virtual MQTT broker: sessions, QoS 1 with a window, retained messages, last wills, shared
//! subscriptions. It is told what arrives and answers with what is to be sent.
//!
//! A session's client is its node. Acknowledgements of clients are not packets of their own: the
//! client says when its acknowledgement will be here, and the broker looks at the time.

mod routes;
mod session;
mod text;

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use protocol::{Envelope, Filter, Topic};

use crate::BrokerSpec;

use self::{routes::Routes, session::Session};

/// Where a message goes: a topic of the platform, or any other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Address {
    Ours(Topic),
    Other(String),
}

/// An MQTT message; shared by all that it is on its way to.
#[derive(Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) address: Address,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
    /// As the manager reads it, where that was done ahead.
    pub(crate) read: Option<Box<fleet::News>>,
}

/// What a client subscribes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Want {
    Ours(Filter),
    /// A filter in MQTT's own syntax, with its group if it is a shared one.
    Text {
        group: Option<String>,
        pattern: String,
    },
}

/// What the broker sends to one node.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) to: u32,
    pub(crate) conn: u32,
    pub(crate) pid: u64,
    pub(crate) message: Arc<Message>,
    pub(crate) duplicate: bool,
}

/// What follows from something that the broker was told.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) sends: Vec<Outbound>,
    /// Look at this session again then.
    pub(crate) pumps: Vec<(u32, u64)>,
    /// How many messages found no room.
    pub(crate) dropped: u64,
}

/// Whether connections can break: then everything that was said has to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Calm,
    Rough,
}

/// The broker.
#[derive(Debug)]
pub(crate) struct Broker {
    queued_max: usize,
    rules: session::Rules,
    up: bool,
    sessions: Vec<Session>,
    routes: Routes,
    retained: BTreeMap<Address, Arc<Message>>,
    targets: Vec<u32>,
}

impl Address {
    pub(crate) fn text(&self) -> String {
        self.to_string()
    }

    pub(crate) fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Other(text.to_owned()), Self::Ours)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(topic) => topic.fmt(f),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl Message {
    pub(crate) fn of(envelope: Envelope) -> Self {
        let Envelope { topic, payload } = envelope;
        let retain = topic.is_retained();
        Self { address: Address::Ours(topic), payload, retain, read: None }
    }

    /// Reads what the manager is going to read: now, and on this thread. What it makes of it does
    /// not depend on either.
    pub(crate) fn read_ahead(&mut self) {
        let Address::Ours(topic) = &self.address else { return };
        let is_news =
            [Topic::PropletAlive, Topic::PropletCreate, Topic::TaskMetrics, Topic::TaskResults];
        if is_news.contains(topic) {
            let envelope = Envelope { topic: topic.clone(), payload: self.payload.clone() };
            self.read = envelope.try_into().ok().map(Box::new);
        }
    }

    /// What was read ahead, if nobody else holds the message.
    pub(crate) fn take_read(message: &mut Arc<Self>) -> Option<Box<fleet::News>> {
        Arc::get_mut(message)?.read.take()
    }

    /// As a machine takes it; `None` if the topic is not one of the platform's.
    pub(crate) fn envelope(message: Arc<Self>) -> Option<Envelope> {
        let Self { address, payload, .. } = match Arc::try_unwrap(message) {
            Ok(own) => own,
            Err(shared) => Self {
                address: shared.address.clone(),
                payload: shared.payload.clone(),
                retain: shared.retain,
                read: None,
            },
        };
        match address {
            Address::Ours(topic) => Some(Envelope { topic, payload }),
            Address::Other(_) => None,
        }
    }
}

impl Want {
    /// A filter as a peer writes it.
    pub(crate) fn parse(text: &str) -> Self {
        let shared = text.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
        match shared {
            Some((group, pattern)) => {
                Self::Text { group: Some(group.to_owned()), pattern: pattern.to_owned() }
            }
            None => Self::Text { group: None, pattern: text.to_owned() },
        }
    }

    fn matches(&self, address: &Address) -> bool {
        match (self, address) {
            (Self::Ours(filter), Address::Ours(topic)) => filter.matches(topic),
            (Self::Ours(_), Address::Other(_)) => false,
            (Self::Text { pattern, .. }, address) => text::matches(pattern, &address.text()),
        }
    }
}

impl Broker {
    pub(crate) fn new(spec: &BrokerSpec, weather: Weather, nodes: usize) -> Self {
        Self {
            queued_max: spec.queued_max,
            rules: session::Rules { window: spec.inflight_max, weather },
            up: true,
            sessions: (0..nodes).map(|_| Session::default()).collect(),
            routes: Routes::default(),
            retained: BTreeMap::new(),
            targets: vec![],
        }
    }

    /// In a part of a world where it is not.
    pub(crate) fn none() -> Self {
        Self::new(&BrokerSpec::default(), Weather::Calm, 0)
    }

    pub(crate) const fn is_up(&self) -> bool {
        self.up
    }

    /// A client connects; whether its session was still there. What is queued for it comes after
    /// its subscriptions, by [`Broker::pump`].
    pub(crate) fn connect(&mut self, node: u32, conn: u32) -> bool {
        self.sessions[node as usize].connect(conn)
    }

    /// The connection is gone without a goodbye.
    pub(crate) fn lose(&mut self, node: u32, conn: u32, now_us: u64) {
        self.sessions[node as usize].lose(conn, now_us);
    }

    /// The connection that this node's session has.
    pub(crate) fn connection(&self, node: u32) -> Option<u32> {
        self.sessions[node as usize].conn()
    }

    /// Up to when the broker took what came over this connection; until now, if it still does.
    pub(crate) fn heard_until_us(&self, node: u32, conn: u32, now_us: u64) -> u64 {
        let session = &self.sessions[node as usize];
        if session.conn() == Some(conn) { now_us } else { session.lost_us() }
    }

    pub(crate) fn is_connected(&self, node: u32, conn: u32) -> bool {
        self.sessions[node as usize].conn() == Some(conn)
    }

    pub(crate) fn subscribe(&mut self, node: u32, want: &Want, now_us: u64, answer: &mut Answer) {
        self.routes.add(node, want);
        let retained: Vec<_> = match want {
            Want::Ours(Filter::Exactly(topic)) if topic.is_retained() => {
                self.retained.get(&Address::Ours(topic.clone())).into_iter().cloned().collect()
            }
            Want::Ours(
                Filter::Exactly(_)
                | Filter::AcksOf(_)
                | Filter::AnyUpdate
                | Filter::AnyAbsent
                | Filter::AnyOpened
                | Filter::AnyComplete
                | Filter::AnyFailed
                | Filter::UpdateWantsOf(_)
                | Filter::AnyUpdateChunk
                | Filter::AnyModelPublish
                | Filter::AnyModelPublishWants
                | Filter::AnyModelWants
                | Filter::AnyModelPublishChunk
                | Filter::AnyLinePublishChunk
                | Filter::AnySessionCommand,
            )
            | Want::Text { group: Some(_), .. } => vec![],
            Want::Ours(
                Filter::AnyModel
                | Filter::AnyModelLatest
                | Filter::AnySessionStatus
                | Filter::Everything,
            )
            | Want::Text { group: None, .. } => {
                let all = self.retained.iter();
                all.filter(|(at, _)| want.matches(at)).map(|(_, it)| Arc::clone(it)).collect()
            }
        };
        for message in retained {
            self.enqueue(node, &message, now_us, answer);
        }
    }

    pub(crate) fn unsubscribe(&mut self, node: u32, want: &Want) {
        self.routes.remove(node, want);
    }

    /// Takes a message, and hands it to everybody who wants it.
    pub(crate) fn publish(&mut self, message: &Arc<Message>, now_us: u64, answer: &mut Answer) {
        if message.retain {
            if message.payload.is_empty() {
                self.retained.remove(&message.address);
            } else {
                self.retained.insert(message.address.clone(), Arc::clone(message));
            }
        }
        let mut targets = std::mem::take(&mut self.targets);
        let sessions = &self.sessions;
        self.routes
            .find(&message.address, &mut targets, |node| sessions[node as usize].conn().is_some());
        for node in targets.drain(..) {
            self.enqueue(node, message, now_us, answer);
        }
        self.targets = targets;
    }

    /// Sends what may be sent.
    pub(crate) fn pump(&mut self, node: u32, now_us: u64, answer: &mut Answer) {
        self.sessions[node as usize].pump(node, self.rules, now_us, answer);
    }

    /// The client has dealt with this message; the broker will know at `at_us`.
    pub(crate) fn acknowledge(
        &mut self,
        (node, conn): (u32, u32),
        pid: u64,
        at_us: u64,
    ) -> Option<u64> {
        self.sessions[node as usize].acknowledge(conn, pid, at_us)
    }

    /// Everybody is cut off; the nodes that were connected.
    pub(crate) fn go_down(&mut self, keeps: bool, now_us: u64) -> Vec<(u32, u32)> {
        self.up = false;
        let mut cut = vec![];
        for (node, session) in (0..).zip(&mut self.sessions) {
            if let Some(conn) = session.conn() {
                cut.push((node, conn));
                session.lose(conn, now_us);
            }
            if !keeps {
                session.wipe();
            }
        }
        if !keeps {
            self.routes = Routes::default();
            self.retained.clear();
        }
        cut
    }

    pub(crate) const fn come_up(&mut self) {
        self.up = true;
    }

    fn enqueue(&mut self, node: u32, message: &Arc<Message>, now_us: u64, answer: &mut Answer) {
        let session = &mut self.sessions[node as usize];
        if session.send((node, message), self.rules, now_us, answer) {
            return;
        }
        if !session.push(message, self.queued_max) {
            answer.dropped += 1;
            return;
        }
        session.pump(node, self.rules, now_us, answer);
    }
}
