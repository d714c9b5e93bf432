//! Nodes outside, advanced conservatively: never past the time at which something could still
//! reach them, all at once where they can be.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Event, World};
use crate::{
    Done, OnFailure, Peer, PeerError, PeerEvent,
    broker::{Address, Message, Want},
    client::Durability,
    queue::Class,
};

/// Every node outside, in the order of the scenario.
#[derive(Default)]
pub(super) struct Peers {
    slots: Vec<Slot>,
    quantum_us: u64,
    lost: Vec<PeerError>,
    ended: bool,
}

struct Slot {
    node: u32,
    name: String,
    policy: OnFailure,
    peer: Option<Box<dyn Peer>>,
    /// How far it has advanced.
    at_us: u64,
    next: Next,
    /// What has come in and was not handed over yet, in order.
    inbox: Vec<PeerEvent>,
    /// How much later anybody can notice what it does.
    lookahead_us: u64,
    /// The longest window while it does not say when it acts next.
    step_us: Option<u64>,
}

/// What is known of a node outside before it has done anything.
pub(super) struct Outside {
    pub(super) policy: OnFailure,
    pub(super) peer: Box<dyn Peer>,
    pub(super) lookahead_us: u64,
    pub(super) step_us: Option<u64>,
}

/// When a node does something of its own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    At(u64),
    /// It does not say.
    Anytime,
}

impl Slot {
    /// The first time at which it may do something.
    fn wakes_us(&self) -> u64 {
        let own = match self.next {
            Next::At(at) => at,
            Next::Anytime => self.at_us,
        };
        self.inbox.first().map_or(own, |event| own.min(event.time_us))
    }

    /// The first time at which somebody else may notice.
    fn horizon_us(&self, quantum_us: u64) -> u64 {
        let ahead = match self.next {
            Next::At(_) => self.lookahead_us,
            Next::Anytime if self.lookahead_us == 0 => self.step_us.unwrap_or(quantum_us),
            Next::Anytime => self.lookahead_us.min(self.step_us.unwrap_or(u64::MAX)),
        };
        self.wakes_us().saturating_add(ahead)
    }

    fn took(&mut self, to_us: u64, done: &Done) {
        self.at_us = to_us;
        self.next = match done.next_us {
            Some(next) => Next::At(next.max(to_us + 1)),
            None => Next::Anytime,
        };
    }
}

impl Peers {
    pub(super) fn new(quantum_us: u64) -> Self {
        Self { quantum_us, ..Self::default() }
    }

    pub(super) fn add(&mut self, (node, name): (u32, String), outside: Outside) {
        let Outside { policy, peer, lookahead_us, step_us } = outside;
        self.slots.push(Slot {
            node,
            name,
            policy,
            peer: Some(peer),
            at_us: 0,
            next: Next::Anytime,
            inbox: vec![],
            lookahead_us,
            step_us,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn lost(&self) -> &[PeerError] {
        &self.lost
    }

    /// Ends every node; once.
    pub(super) fn shutdown(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.slots
                .iter_mut()
                .filter_map(|slot| slot.peer.as_mut())
                .for_each(|it| it.shutdown());
        }
    }

    fn find(&self, node: u32) -> Option<usize> {
        self.slots.iter().position(|slot| slot.node == node)
    }

    /// How far everybody may be advanced; `None` if nobody has to be.
    fn target_us(&self, next_us: u64) -> Option<u64> {
        let alive = self.slots.iter().filter(|slot| slot.peer.is_some());
        let horizon = alive.map(|slot| slot.horizon_us(self.quantum_us)).min()?;
        (horizon <= next_us).then_some(horizon)
    }
}

impl World {
    /// Advances the nodes outside if one of them could still do something before `next_us`.
    pub(super) fn advance_peers(&mut self, next_us: u64) -> Result<bool, PeerError> {
        let Some(to_us) = self.peers.target_us(next_us) else { return Ok(false) };
        let is_behind = |slot: &Slot| slot.at_us < to_us || !slot.inbox.is_empty();
        let chosen: Vec<usize> = (0..self.peers.slots.len())
            .filter(|place| {
                let slot = &self.peers.slots[*place];
                slot.peer.is_some() && slot.wakes_us() <= to_us && is_behind(slot)
            })
            .collect();
        if chosen.is_empty() {
            return Ok(false);
        }
        let mut begun = vec![];
        for place in chosen {
            let slot = &mut self.peers.slots[place];
            let due = slot.inbox.partition_point(|event| event.time_us <= to_us);
            let events: Vec<_> = slot.inbox.drain(..due).collect();
            let began = slot.peer.as_mut().map(|peer| peer.begin(to_us, events));
            begun.push((place, began.unwrap_or(Ok(()))));
        }
        for (place, began) in begun {
            let slot = &mut self.peers.slots[place];
            let Some(peer) = slot.peer.as_mut() else { continue };
            match began.and_then(|()| peer.finish()) {
                Ok(done) => self.advanced(place, to_us, done)?,
                Err(why) => self.peer_failed(place, why)?,
            }
        }
        Ok(true)
    }

    fn advanced(&mut self, place: usize, to_us: u64, done: Done) -> Result<(), PeerError> {
        let slot = &mut self.peers.slots[place];
        let (node, from_us) = (slot.node, slot.at_us);
        slot.took(to_us, &done);
        for event in done.events {
            if event.time_us < from_us || event.time_us > to_us {
                let what = format!(
                    "event {:?} at {} us is outside of its window from {from_us} to {to_us} us",
                    event.kind, event.time_us
                );
                return self.fault_of(place, event.time_us, what);
            }
            self.spoken(place, node, event)?;
        }
        Ok(())
    }

    fn fault_of(&mut self, place: usize, time_us: u64, what: String) -> Result<(), PeerError> {
        let node = self.peers.slots[place].name.clone();
        self.peer_failed(place, PeerError { node, time_us, line: None, what })
    }

    /// The run ends, or goes on without the node.
    fn peer_failed(&mut self, place: usize, why: PeerError) -> Result<(), PeerError> {
        let slot = &mut self.peers.slots[place];
        if let Some(mut peer) = slot.peer.take() {
            peer.shutdown();
        }
        let (node, policy) = (slot.node, slot.policy);
        slot.inbox.clear();
        self.trace(node, "node_lost", &[why.what.as_bytes()], || json!({ "why": why.to_string() }));
        match policy {
            OnFailure::Stop => Err(why),
            OnFailure::GoOn => {
                let acked_us = self.acknowledged_us(node);
                let it = self.node(node);
                let conn = it.client.conn();
                it.alive = false;
                it.client.died(acked_us);
                self.peers.lost.push(why);
                self.session_lost(node, conn);
                Ok(())
            }
        }
    }

    /// A node outside has sent something. It leaves when it was sent, although that is known only
    /// now: nothing that it reaches has got so far.
    fn spoken(&mut self, place: usize, node: u32, event: PeerEvent) -> Result<(), PeerError> {
        if !self.node(node).alive {
            return Ok(());
        }
        let payload = event.payload.to_string();
        let parts = [event.kind.as_bytes(), event.dst.as_bytes(), payload.as_bytes()];
        self.trace(node, "event", &parts, || json!(event));
        self.watcher.spoken(&event.kind, event.time_us);
        // A node that spoke although it had said that it would not is not heard in the past.
        let earliest_us = self.now_us.saturating_sub(self.peers.slots[place].lookahead_us);
        self.sent_us = Some(event.time_us.max(earliest_us));
        let told = match event.dst.as_str() {
            PeerEvent::BROKER => self.tell_broker(node, &event),
            // It has told nobody: the trace has it.
            "" => Ok(()),
            _ => self.tell_node(node, event),
        };
        self.sent_us = None;
        told.or_else(|(time_us, what)| self.fault_of(place, time_us, what))
    }

    fn tell_broker(&mut self, node: u32, event: &PeerEvent) -> Result<(), (u64, String)> {
        let text = |key: &str| {
            let given = event.payload.get(key).and_then(Value::as_str);
            given.filter(|text| !text.is_empty()).ok_or_else(|| {
                (event.time_us, format!("event {:?} has no text {key:?}", event.kind))
            })
        };
        match event.kind.as_str() {
            PeerEvent::PUBLISH => {
                let topic = text("topic")?;
                if topic.contains(['+', '#']) {
                    return Err((event.time_us, format!("{topic:?} is a filter, not a topic")));
                }
                let payload = bytes_of(event.payload.get("payload").unwrap_or(&Value::Null));
                let retain = event.payload.get("retain").and_then(Value::as_bool);
                let retain = retain.unwrap_or_default();
                let message =
                    Message { address: Address::parse(topic), payload, retain, read: None };
                self.post(node, message, Durability::Said);
            }
            PeerEvent::SUBSCRIBE => self.listen(node, Want::parse(text("filter")?)),
            PeerEvent::UNSUBSCRIBE => self.unlisten(node, Want::parse(text("filter")?)),
            other => {
                return Err((event.time_us, format!("the broker takes no event {other:?}")));
            }
        }
        Ok(())
    }

    fn tell_node(&mut self, src: u32, event: PeerEvent) -> Result<(), (u64, String)> {
        let slot = self.peers.slots.iter().find(|slot| slot.name == event.dst);
        let Some(dst) = slot.map(|slot| slot.node) else {
            return Err((event.time_us, format!("unknown destination {:?}", event.dst)));
        };
        for at in self.network.post(src, dst, event.size_bytes, self.sending_us()) {
            let at = at.max(self.now_us);
            let event = Box::new(PeerEvent { time_us: at, ..event.clone() });
            self.queue.push(at, Class::Delivery, src, Event::Heard { node: dst, event });
        }
        Ok(())
    }

    /// Something has arrived at a node outside.
    pub(super) fn heard(&mut self, node: u32, event: PeerEvent) {
        let now_us = self.now_us;
        if let Some(place) = self.peers.find(node) {
            let slot = &mut self.peers.slots[place];
            if slot.peer.is_some() {
                slot.inbox.push(PeerEvent { time_us: now_us, ..event });
            }
        }
    }

    /// A message from the broker has arrived at a node outside.
    pub(super) fn hand_over(&mut self, node: u32, message: &Message) {
        let payload = match std::str::from_utf8(&message.payload) {
            Ok(text) => json!(text),
            Err(_) => json!({ "base64": STANDARD.encode(&message.payload) }),
        };
        let topic = message.address.text();
        let event = PeerEvent {
            time_us: self.now_us,
            kind: PeerEvent::MESSAGE.to_owned(),
            src: PeerEvent::BROKER.to_owned(),
            dst: self.node(node).name.to_string(),
            payload: json!({ "topic": topic, "payload": payload, "retain": message.retain }),
            size_bytes: message.payload.len() as u64,
        };
        self.heard(node, event);
    }
}

/// Text as it is, `{"base64": ...}` as what it stands for, anything else as JSON.
fn bytes_of(payload: &Value) -> bytes::Bytes {
    if let Some(text) = payload.as_str() {
        return text.to_owned().into();
    }
    let coded = payload.as_object().filter(|it| it.len() == 1).and_then(|it| it.get("base64"));
    let decoded = coded.and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
    decoded.unwrap_or_else(|| payload.to_string().into_bytes()).into()
}
