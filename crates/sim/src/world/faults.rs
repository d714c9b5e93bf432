//! What goes wrong, as the scenario says: to processes, the broker, links, devices and honesty.

use serde_json::json;

use super::{Event, Up, World};
use crate::{
    Behaviour, Dice, Memory,
    client::State,
    fault::{Blow, Silence},
    queue::Class,
    role::Role,
    scenario::fits,
    world::build::{BROKER, OPERATOR},
};

/// From the start of a process to its first attempt to connect.
const BOOT_US: u64 = 10_000;

impl World {
    pub(super) fn strike(&mut self, blow: Blow) {
        match blow {
            Blow::Down { nodes, memory, silence } => {
                self.each(&nodes, |world, node| world.kill(node, memory, silence));
            }
            Blow::Up { nodes } => self.each(&nodes, Self::revive),
            Blow::BrokerDown { memory } => self.broker_down(memory),
            Blow::BrokerUp => {
                self.broker.come_up();
                self.trace(BROKER, "broker_up", &[], || json!({}));
            }
            Blow::Cut { nodes, until_us } => {
                for pattern in nodes {
                    self.each(&pattern, |world, node| world.cut(node, until_us));
                }
            }
            Blow::Pace { nodes, factor } => {
                self.each(&nodes, |world, node| world.node(node).pace = factor.max(0.0));
            }
            Blow::Turn { nodes, behaviour, share } => {
                self.each(&nodes, |world, node| world.turn(node, behaviour, share));
            }
        }
    }

    fn each(&mut self, pattern: &str, mut strike: impl FnMut(&mut Self, u32)) {
        for node in 0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX) {
            let is_victim = node != BROKER && node != OPERATOR;
            if is_victim && fits(pattern, &self.nodes[node].name) {
                strike(self, node);
            }
        }
    }

    /// The node's process dies.
    pub(super) fn kill(&mut self, node: u32, memory: Memory, silence: Silence) {
        let noticed_us = self.silence_us().map(|us| self.now_us.saturating_add(us));
        let acked_us = self.acknowledged_us(node);
        let it = self.node(node);
        if !it.alive || matches!(it.role, Role::Peer) {
            return;
        }
        let (conn, was_away) = (it.client.conn(), it.client.state() == State::Away);
        it.role.die();
        it.client.died(acked_us);
        if memory == Memory::Lost {
            it.role.wipe();
            it.client.wiped();
        }
        it.alive = false;
        it.life += 1;
        it.alarm.wake_us = u64::MAX;
        self.forget_tasks(node);
        self.trace(node, "down", &[], || json!({ "state": memory }));
        if was_away {
            return;
        }
        match silence {
            Silence::Told => {
                self.send_up(node, Up::Gone, 0);
            }
            Silence::Silent => {
                if let Some(at) = noticed_us {
                    self.cause(BROKER, (at, Class::Broker, node), Event::Silence { node, conn });
                }
            }
        }
    }

    /// The node's process is started again.
    pub(super) fn revive(&mut self, node: u32) {
        let at = self.now_us + BOOT_US;
        let it = self.node(node);
        if it.alive || it.device.battery_j.is_some_and(|battery| it.energy_j >= battery) {
            return;
        }
        it.alive = true;
        it.role.revive();
        let life = it.life;
        self.trace(node, "up", &[], || json!({}));
        self.subscribe_to_own(node);
        self.queue.push(at, Class::Connect, node, Event::Connect { node, life });
        self.set_alarm(node);
    }

    fn broker_down(&mut self, memory: Memory) {
        self.trace(BROKER, "broker_down", &[], || json!({ "state": memory }));
        for (node, conn) in self.broker.go_down(memory == Memory::Kept, self.now_us) {
            self.send_down(node, conn, super::Down::Gone, 0);
        }
    }

    /// Nothing passes between a node and the rest; if that lasts, both ends give the connection
    /// up.
    fn cut(&mut self, node: u32, until_us: u64) {
        self.network.cut(node, until_us);
        self.trace(node, "cut", &[&until_us.to_le_bytes()], || json!({ "until_us": until_us }));
        let Some(silence_us) = self.silence_us() else { return };
        let noticed_us = self.now_us.saturating_add(silence_us);
        let it = self.node(node);
        let conn = it.client.conn();
        if it.client.state() == State::Away || noticed_us >= until_us {
            return;
        }
        self.queue.push(noticed_us, Class::Broker, node, Event::Silence { node, conn });
        let gone = Event::ToNode { node, conn, packet: super::Down::Gone };
        self.queue.push(noticed_us, Class::Delivery, node, gone);
    }

    /// After so much silence a connection is given up; never if nobody has to say that it lives.
    pub(super) const fn silence_us(&self) -> Option<u64> {
        match self.keep_alive_us {
            0 => None,
            us => Some(us.saturating_add(us / 2)),
        }
    }

    fn turn(&mut self, node: u32, behaviour: Option<Behaviour>, share: f64) {
        let seed = self.seed;
        let it = self.node(node);
        if Dice::of(seed, &it.name, "byzantine").unit() < share {
            it.lie = behaviour;
        }
    }

    /// A device whose battery is empty is gone for good.
    pub(super) fn check_battery(&mut self, node: u32) {
        let it = self.node(node);
        if it.device.battery_j.is_some_and(|battery| it.energy_j >= battery) {
            self.kill(node, Memory::Kept, Silence::Silent);
        }
    }
}
