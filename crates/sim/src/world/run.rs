//! The loop: the earliest event, and what follows from it.

use super::{Event, Progress, RunError, State, World};
use crate::{Stop, Summary, TraceSink, role::Role};

impl World {
    pub(super) fn live(
        &mut self,
        sink: &mut dyn TraceSink,
        progress: &mut dyn Progress,
    ) -> Result<(), RunError> {
        if let Some(ahead_us) = self.lookahead_us() {
            return self.live_in_halves(ahead_us, progress);
        }
        let grain_us = progress.grain_us();
        let mut word_us = 0;
        loop {
            self.queue_ready()?;
            let Some(next_us) = self.queue.next_us().filter(|at| *at <= self.until_us) else {
                self.now_us = self.until_us;
                break;
            };
            if next_us >= word_us {
                word_us = next_us.saturating_add(grain_us);
                if !progress.advance(next_us, &self.state()) {
                    return Err(RunError::Stopped { at_us: self.now_us });
                }
            }
            self.next_event();
            for event in self.traced.drain(..) {
                sink.event(event);
            }
            if self.stop == Stop::AfterRounds && self.is_done() {
                break;
            }
        }
        self.traced.drain(..).for_each(|event| sink.event(event));
        Ok(())
    }

    /// Makes sure that nothing can still come before the next event of the queue: neither from
    /// tasks that are being computed nor from nodes outside.
    fn queue_ready(&mut self) -> Result<(), RunError> {
        loop {
            let next_us = self.queue.next_us().unwrap_or(u64::MAX).min(self.until_us);
            if self.tasks.are_due(next_us) {
                self.finish_tasks();
            } else if !self.advance_peers(next_us)? {
                return Ok(());
            }
        }
    }

    pub(super) fn next_event(&mut self) {
        let Some((key, event)) = self.queue.pop() else { return };
        assert!(key.time_us >= self.now_us, "time does not run backwards");
        self.now_us = key.time_us;
        self.key = Some(key);
        self.events += 1;
        self.chain.begin(key);
        match event {
            Event::Blow(blow) => self.strike(*blow),
            Event::ToBroker { node, conn, packet } => self.at_broker(node, conn, packet),
            Event::ToNode { node, conn, packet } => self.at_node(node, conn, packet),
            Event::Pump(node) => self.pump(node),
            Event::Silence { node, conn } => self.session_lost(node, conn),
            Event::Connect { node, life } => self.connect(node, life),
            Event::Mail { node, life, mail } => self.mail(node, life, mail),
            Event::TaskEnd { node, token, end } => self.task_ended(node, token, *end),
            Event::Wake(node) => self.wake(node),
            Event::Heard { node, event } => self.heard(node, *event),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        match &self.nodes[super::build::OPERATOR].role {
            Role::Operator(host) => {
                host.machine().is_some_and(|it| it.rounds() > 0 && it.is_done())
            }
            Role::Broker
            | Role::Manager { .. }
            | Role::Coordinator { .. }
            | Role::ModelServer { .. }
            | Role::Proplet(_)
            | Role::Sessions(_)
            | Role::Peer => false,
        }
    }

    pub(super) fn state(&self) -> State {
        let operator = self.operator();
        State {
            until_us: self.until_us,
            events: self.events,
            rounds: operator.map_or(0, |it| it.rounds()),
            rounds_ended: operator
                .map_or(0, |it| it.log.iter().filter(|round| round.end.is_some()).count()),
        }
    }

    pub(super) fn summary(&self) -> Summary {
        let mut summary = self.watcher.summary(self);
        summary.trace_sha256 = self.chain.sha256();
        summary.events = self.chain.events();
        summary.virtual_us = self.now_us;
        summary.lost_nodes = self.peers.lost().to_vec();
        for node in self.nodes.iter().filter(|node| node.energy_j > 0.0) {
            summary.energy_j.insert(node.name.to_string(), node.energy_j);
        }
        summary
    }
}
