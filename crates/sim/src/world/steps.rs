//! What nodes are told, and what they do about it.

use std::sync::Arc;

use protocol::{Envelope, Topic};
use serde_json::json;

use super::{Event, Up, World, halves::Part};
use crate::{
    Packet, TraceEvent, Wants,
    broker::{Message, Want, Weather},
    client::{Durability, State, Wish},
    network::Way,
    queue::Class,
    role::{Act, Feed, Mail, Notes},
    trace::Head,
};

impl World {
    /// Tells a node something, and does what it wants done.
    pub(super) fn feed(&mut self, node: u32, feed: Feed) {
        let notes = if self.wants == Wants::Notes { Notes::Taken } else { Notes::Ignored };
        let mut acts = std::mem::take(&mut self.acts);
        let now_us = self.now_us;
        let it = self.node(node);
        let now = it.clock.at(now_us);
        if let Err(why) = it.role.feed(feed, now, notes, &mut acts) {
            self.trace(node, "unreadable", &[], || json!({ "why": why.to_string() }));
        }
        for act in acts.drain(..) {
            self.act(node, act);
        }
        self.acts = acts;
        self.set_alarm(node);
    }

    fn act(&mut self, node: u32, act: Act) {
        match act {
            Act::Promise(envelope) => self.say(node, envelope, Durability::Promised),
            Act::Publish(envelope) => self.say(node, envelope, Durability::Said),
            Act::Listen(filter) => self.listen(node, Want::Ours(filter)),
            Act::Unlisten(filter) => self.unlisten(node, Want::Ours(filter)),
            Act::Run { start, model, variates } => self.begin_task(node, *start, (model, variates)),
            Act::Cancel { task, attempt } => self.cancel_task(node, &task, attempt),
            Act::Tell { after_us, mail } => {
                let life = self.node(node).life;
                let event = Event::Mail { node, life, mail };
                self.queue.push(self.now_us + after_us, Class::Report, node, event);
            }
            Act::Note(text) => self.trace_note(node, text),
        }
    }

    pub(super) fn mail(&mut self, node: u32, life: u32, mail: Box<Mail>) {
        let it = self.node(node);
        if it.alive && it.life == life {
            self.feed(node, Feed::Mail(mail));
        }
    }

    /// Publishes, or keeps what is to be published until the broker is there.
    fn say(&mut self, node: u32, envelope: Envelope, durability: Durability) {
        let it = self.node(node);
        if let (Some(lie), Topic::RoundUpdate { .. }) = (it.lie, &envelope.topic) {
            for payload in lie.lie(&envelope.payload, &mut it.dice) {
                let topic = envelope.topic.clone();
                self.post(node, Message::of(Envelope { topic, payload }), durability);
            }
            return;
        }
        self.post(node, Message::of(envelope), durability);
    }

    pub(super) fn post(&mut self, node: u32, mut message: Message, durability: Durability) {
        let heard_us = self.acknowledged_us(node);
        if self.part == Part::Crowd {
            message.read_ahead();
        }
        let message = Arc::new(message);
        let there = self.node(node).client.state() == State::There;
        let acked_us = there.then(|| self.transmit(node, &message));
        if !there || self.weather == Weather::Rough {
            self.node(node).client.push(message, durability, acked_us, heard_us);
        }
    }

    /// What was to be acknowledged later than this has not been: a broker that has lost the
    /// connection takes nothing, although the node does not know that yet.
    pub(super) fn acknowledged_us(&self, node: u32) -> u64 {
        if self.part == Part::Crowd {
            // Nothing breaks a connection while the world is in halves.
            return self.now_us;
        }
        let conn = self.nodes[node].client.conn();
        let heard_us = self.broker.heard_until_us(node, conn, self.now_us);
        self.now_us.min(heard_us.saturating_add(self.network.delay_us(node, Way::Down)))
    }

    /// Sends a message on its way; when its acknowledgement will be here.
    pub(super) fn transmit(&mut self, node: u32, message: &Arc<Message>) -> u64 {
        let bytes = size(message);
        let arrives = self.send_up(node, Up::Publish(Arc::clone(message)), bytes);
        arrives.saturating_add(self.network.delay_us(node, Way::Down))
    }

    pub(super) fn listen(&mut self, node: u32, want: Want) {
        self.wish(node, want, Wish::Subscribe);
    }

    pub(super) fn unlisten(&mut self, node: u32, want: Want) {
        self.wish(node, want, Wish::Unsubscribe);
    }

    fn wish(&mut self, node: u32, want: Want, wish: Wish) {
        let heard_us = self.acknowledged_us(node);
        self.node(node).client.wish(want, wish, heard_us);
        if self.node(node).client.state() == State::There {
            self.send_wishes(node);
            if self.weather == Weather::Calm {
                self.node(node).client.forget_wishes();
            }
        }
    }

    /// Tells the broker of every subscription that it does not know of.
    pub(super) fn send_wishes(&mut self, node: u32) {
        while let Some((place, want, wish)) = self.node(node).client.next_wish() {
            let want = Box::new(want);
            let packet = match wish {
                Wish::Subscribe => Up::Subscribe(want),
                Wish::Unsubscribe => Up::Unsubscribe(want),
            };
            let arrives = self.send_up(node, packet, 0);
            let acked_us = arrives.saturating_add(self.network.delay_us(node, Way::Down));
            self.node(node).client.wish_sent(place, acked_us);
        }
    }

    /// Makes sure that the node is told in time that its time has come.
    pub(super) fn set_alarm(&mut self, node: u32) {
        let now_us = self.now_us;
        let it = self.node(node);
        let Some(deadline) = it.role.deadline() else { return };
        let mut when = it.clock.when(deadline, now_us);
        if when <= now_us && it.ticked_us == now_us {
            when = now_us + 1;
        }
        if when < it.alarm.wake_us {
            let seq = self.queue.next_seq(node);
            if let Some(key) = self.node(node).alarm.set(when, node, seq) {
                self.queue.push_as(key, Event::Wake(node));
            }
        }
    }

    pub(super) fn wake(&mut self, node: u32) {
        let now_us = self.now_us;
        let it = self.node(node);
        if let Some(key) = it.alarm.rang(now_us, node) {
            return self.queue.push_as(key, Event::Wake(node));
        }
        if it.alarm.wake_us != now_us || !it.alive {
            return;
        }
        it.alarm.wake_us = u64::MAX;
        let Some(deadline) = it.role.deadline() else { return };
        if it.clock.when(deadline, now_us) > now_us {
            return self.set_alarm(node);
        }
        it.ticked_us = now_us;
        self.feed(node, Feed::Tick);
    }

    /// Puts something into the trace: its parts into the hash, the rest only if somebody looks.
    pub(super) fn trace(
        &mut self,
        node: u32,
        kind: &'static str,
        parts: &[&[u8]],
        detail: impl FnOnce() -> serde_json::Value,
    ) {
        let head = self.head(node);
        self.chain.link(head, kind, parts);
        if self.wants >= Wants::Events {
            self.push_trace(head, kind, detail(), None);
        }
    }

    pub(super) fn trace_packet(
        &mut self,
        node: u32,
        kind: &'static str,
        parts: &[&[u8]],
        packet: impl FnOnce(&str) -> Packet,
    ) {
        let head = self.head(node);
        self.chain.link(head, kind, parts);
        if self.wants >= Wants::Events {
            let packet = packet(&self.nodes[node].name);
            let detail = json!({ "topic": packet.topic, "bytes": packet.payload.len() });
            self.push_trace(head, kind, detail, Some(packet));
        }
    }

    fn trace_note(&mut self, node: u32, text: String) {
        let head = self.head(node);
        self.push_trace(head, "note", json!({ "text": text }), None);
    }

    fn head(&self, node: u32) -> Head {
        let (class, seq) = self.key.map_or((0, 0), |key| (key.class as u8, key.seq));
        Head { time_us: self.now_us, class, source: node, seq }
    }

    fn push_trace(
        &mut self,
        head: Head,
        kind: &'static str,
        detail: serde_json::Value,
        packet: Option<Packet>,
    ) {
        let Head { time_us, class, source, seq } = head;
        let source = self.nodes[source].name.to_string();
        self.traced.push(TraceEvent { time_us, class, source, seq, kind, detail, packet });
    }
}

/// What a message weighs on the wire, headers aside.
pub(super) fn size(message: &Message) -> u64 {
    const TOPIC_BYTES: usize = 40;
    (message.payload.len() + TOPIC_BYTES) as u64
}
