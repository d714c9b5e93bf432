//! Connections: made, lost, noticed to be lost, and made again.

use std::sync::Arc;

use serde_json::json;

use super::{Down, Event, Up, World};
use crate::{
    broker::{Message, Weather},
    client::State,
    queue::Class,
    role::Feed,
};

impl World {
    /// A node tries to connect.
    pub(super) fn connect(&mut self, node: u32, life: u32) {
        let now_us = self.now_us;
        let cut_until_us = self.network.cut_until_us(node);
        let reconnect = self.reconnect;
        let it = self.node(node);
        if !it.alive || it.life != life || it.client.state() != State::Away {
            return;
        }
        if cut_until_us > now_us {
            let at = cut_until_us + it.dice.between(0, reconnect.micros());
            self.queue.push(at, Class::Connect, node, Event::Connect { node, life });
            return;
        }
        it.client.connect();
        self.network.reset(node, now_us);
        self.send_up(node, Up::Connect, 0);
    }

    /// A node asks the broker for a connection.
    pub(super) fn knock(&mut self, node: u32, conn: u32) {
        if !self.broker.is_up() {
            return self.send_down(node, conn, Down::Gone, 0);
        }
        if let Some(old) = self.broker.connection(node) {
            self.session_lost(node, old);
        }
        let resumed = self.broker.connect(node, conn);
        self.send_down(node, conn, Down::Accepted { resumed }, 0);
        self.pump(node);
    }

    /// A node's connection is there.
    pub(super) fn accepted(&mut self, node: u32, conn: u32, resumed: bool) {
        let client = &mut self.node(node).client;
        if client.conn() != conn || client.state() != State::Connecting {
            return;
        }
        client.connected(resumed);
        self.trace(node, "connected", &[&[u8::from(resumed)]], || json!({ "resumed": resumed }));
        self.send_wishes(node);
        if self.weather == Weather::Calm {
            self.node(node).client.forget_wishes();
        }
        let mut outgoing = self.node(node).client.take_outgoing();
        for message in &mut outgoing {
            message.send(|message| self.transmit(node, message));
        }
        self.node(node).client.put_outgoing(outgoing);
        self.feed(node, Feed::Connected { resumed });
    }

    /// A node notices that its connection is gone, and will try again.
    pub(super) fn connection_lost(&mut self, node: u32, conn: u32) {
        let (now_us, acked_us) = (self.now_us, self.acknowledged_us(node));
        let reconnect = self.reconnect;
        let it = self.node(node);
        if !it.alive || it.client.conn() != conn || it.client.state() == State::Away {
            return;
        }
        let was_there = it.client.state() == State::There;
        it.client.lost(acked_us);
        let patience = it.client.patience(reconnect);
        let at = now_us + patience + it.dice.between(0, patience / 2);
        let life = it.life;
        self.queue.push(at, Class::Connect, node, Event::Connect { node, life });
        if was_there {
            self.trace(node, "disconnected", &[], || json!({}));
            self.feed(node, Feed::Lost);
        }
    }

    /// The broker notices that a connection is gone: the last will is published.
    pub(super) fn session_lost(&mut self, node: u32, conn: u32) {
        if !self.broker.is_connected(node, conn) {
            return;
        }
        self.broker.lose(node, conn, self.now_us);
        self.trace(node, "session_lost", &[], || json!({}));
        // Every connection of a node has the same will: there is no need to hold it twice.
        if let Some(will) = self.will(node) {
            self.publish(node, &Arc::new(Message::of(will)));
        }
    }
}
