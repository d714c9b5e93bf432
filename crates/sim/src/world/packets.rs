//! Packets between nodes and the broker.

use std::{fmt::Write as _, sync::Arc};

use super::{Down, Event, Up, World, halves::Ack, steps::size};
use crate::{
    Direction, Packet,
    broker::{Answer, Message},
    network::Way,
    queue::Class,
    role::{Feed, Role},
    world::build::BROKER,
};

impl World {
    /// Sends a packet of the node's connection; when it arrives.
    pub(super) fn send_up(&mut self, node: u32, packet: Up, bytes: u64) -> u64 {
        let arrives = self.network.send(node, Way::Up, bytes, self.sending_us()).max(self.now_us);
        let it = self.node(node);
        let conn = it.client.conn();
        it.energy_j += it.device.j_per_byte * bytes as f64;
        let event = Event::ToBroker { node, conn, packet };
        self.cause(BROKER, (arrives, Class::Broker, node), event);
        arrives
    }

    pub(super) fn send_down(&mut self, node: u32, conn: u32, packet: Down, bytes: u64) {
        let arrives = self.network.send(node, Way::Down, bytes, self.now_us);
        let event = Event::ToNode { node, conn, packet };
        self.cause(node, (arrives, Class::Delivery, BROKER), event);
    }

    /// A packet has arrived at the broker.
    pub(super) fn at_broker(&mut self, node: u32, conn: u32, packet: Up) {
        let is_connected = self.broker.is_connected(node, conn);
        match packet {
            Up::Connect => self.knock(node, conn),
            // What was under way when the connection broke does not arrive.
            Up::Subscribe(_) | Up::Unsubscribe(_) | Up::Publish(_) | Up::Gone if !is_connected => {}
            Up::Subscribe(want) => {
                let mut answer = Answer::default();
                self.broker.subscribe(node, &want, self.now_us, &mut answer);
                self.carry(&mut answer);
            }
            Up::Unsubscribe(want) => self.broker.unsubscribe(node, &want),
            Up::Publish(message) => {
                self.publish(node, &message);
            }
            Up::Gone => self.session_lost(node, conn),
        }
    }

    /// The broker takes a message and hands it on.
    pub(super) fn publish(&mut self, node: u32, message: &Arc<Message>) {
        let mut topic = std::mem::take(&mut self.topic);
        topic.clear();
        // Writing into a text cannot fail.
        let _ = write!(topic, "{}", message.address);
        self.trace_packet(node, "publish", &[topic.as_bytes(), &message.payload], |client| {
            Packet {
                client: client.to_owned(),
                direction: Direction::ToBroker,
                topic: topic.clone(),
                payload: message.payload.clone(),
                retain: message.retain,
                duplicate: false,
            }
        });
        self.topic = topic;
        self.watcher.watch(message, self.now_us);
        let mut answer = std::mem::take(&mut self.answer);
        self.broker.publish(message, self.now_us, &mut answer);
        self.carry(&mut answer);
        self.answer = answer;
    }

    pub(super) fn pump(&mut self, node: u32) {
        let mut answer = Answer::default();
        self.broker.pump(node, self.now_us, &mut answer);
        self.carry(&mut answer);
    }

    /// Does what the broker wants done.
    pub(super) fn carry(&mut self, answer: &mut Answer) {
        for send in answer.sends.drain(..) {
            let bytes = size(&send.message);
            let (pid, message, duplicate) = (send.pid, send.message, send.duplicate);
            self.send_down(send.to, send.conn, Down::Publish { pid, message, duplicate }, bytes);
        }
        for (node, at_us) in answer.pumps.drain(..) {
            self.look_at(node, at_us.max(self.now_us));
        }
        let dropped = std::mem::take(&mut answer.dropped);
        if dropped > 0 {
            self.trace(
                BROKER,
                "dropped",
                &[&dropped.to_le_bytes()],
                || serde_json::json!({ "messages": dropped }),
            );
        }
    }

    /// A packet has arrived at a node.
    pub(super) fn at_node(&mut self, node: u32, conn: u32, packet: Down) {
        let client = &self.nodes[node].client;
        match packet {
            Down::Accepted { resumed } => self.accepted(node, conn, resumed),
            Down::Gone => self.connection_lost(node, conn),
            Down::Publish { .. } if !client.is_there(conn) => {}
            Down::Publish { pid, message, duplicate } => {
                let leaves_us = self.now_us.max(self.network.cut_until_us(node));
                let acked_us = leaves_us.saturating_add(self.network.delay_us(node, Way::Up));
                // The node acknowledges once what follows is durable, which takes no time here.
                self.acknowledge(Ack { node, conn, pid, at_us: acked_us });
                self.deliver(node, pid, message, duplicate);
            }
        }
    }

    fn deliver(&mut self, node: u32, pid: u64, message: Arc<Message>, duplicate: bool) {
        let bytes = size(&message);
        let it = self.node(node);
        it.energy_j += it.device.j_per_byte * bytes as f64;
        let kind = if duplicate { "deliver_again" } else { "deliver" };
        self.trace_packet(node, kind, &[&pid.to_le_bytes()], |client| Packet {
            client: client.to_owned(),
            direction: Direction::FromBroker,
            topic: message.address.text(),
            payload: message.payload.clone(),
            retain: message.retain,
            duplicate,
        });
        if matches!(self.nodes[node].role, Role::Peer) {
            self.hand_over(node, &message);
        } else {
            self.feed(node, Feed::Message(message));
        }
    }
}
