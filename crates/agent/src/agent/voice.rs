//! What the agent says of itself, and when.

use protocol::{
    Letter as _,
    message::{AliveStatus, HeldTask, PropletAlive, PropletCreate, PropletMetrics},
};

use super::{Agent, NEVER};
use crate::{Effect, Measurement, turn::Turn};

impl Agent {
    /// The broker is there (again), and may have lost all that was said.
    pub(super) fn connected(&mut self, turn: &mut Turn) {
        self.link.up = true;
        self.link.count += 1;
        self.link.repeated = false;
        if self.link.closing {
            return;
        }
        // The pins of the process before are gone.
        let mut blobs = self.updates.blobs();
        blobs.extend(self.residuals.blobs());
        if self.link.count == 1 && !blobs.is_empty() {
            turn.effect(Effect::Hold(blobs));
        }
        self.report_interrupted(turn);
        self.updates.start_over();
        for waiting in self.waiting.values_mut() {
            waiting.until = turn.now + self.config.model_wait;
        }
        self.go_on_fetching(turn);
        self.next_alive = turn.now + self.config.alive_every;
        self.next_metrics = NEVER;
        self.measure_later(turn);
        turn.publish(self.introduction().seal());
    }

    /// Says what is due. While the broker is away, nothing is: it would only pile up.
    pub(super) fn speak(&mut self, turn: &mut Turn) {
        if !self.link.up {
            return;
        }
        for envelope in self.updates.due(&self.proplet, turn.now) {
            turn.publish(envelope);
        }
        // A manager that began after this connection has not heard who is there. Once a connection is
        // enough, since there are managers that know no topics of single proplets.
        let again = turn.stranger && !self.link.repeated;
        if again || turn.alive || self.next_alive <= turn.now {
            self.link.repeated |= again;
            self.next_alive = turn.now + self.config.alive_every;
            turn.publish(if again {
                self.introduction().seal()
            } else {
                self.alive(AliveStatus::Alive).seal()
            });
        }
        if self.next_metrics <= turn.now {
            // Whoever does nothing has nothing to say of itself.
            self.next_metrics = NEVER;
            if self.slots_taken() > 0 {
                self.measure_later(turn);
            }
            turn.effect(Effect::Measure);
        }
    }

    /// Something has happened that will show in the metrics: once connected, and whenever something
    /// runs.
    pub(super) fn measure_later(&mut self, turn: &Turn) {
        if let Some(every) = self.config.metrics_every.filter(|_| self.next_metrics == NEVER) {
            self.next_metrics = turn.now + every;
        }
    }

    pub(super) fn measured(&self, measurement: Measurement, turn: &mut Turn) {
        if self.link.closing || !self.link.up {
            return;
        }
        let Measurement { cpu_percent, memory_bytes, uptime_s } = measurement;
        let metrics = PropletMetrics {
            proplet_id: self.proplet.clone(),
            namespace: self.config.namespace.clone(),
            cpu_percent,
            memory_bytes,
            uptime_s,
        };
        turn.publish(metrics.seal());
    }

    /// Interrupts what runs, says goodbye, and from now on says nothing.
    pub(super) fn shut_down(&mut self, turn: &mut Turn) {
        if self.link.closing {
            return;
        }
        self.interrupt_all(turn);
        self.link.closing = true;
        if self.link.up {
            turn.publish(self.alive(AliveStatus::Offline).seal());
        }
        if self.ending_len() == 0 {
            turn.effect(Effect::Stopped);
        }
    }

    /// Who this is.
    fn introduction(&self) -> PropletCreate {
        let mut metadata = self.config.metadata.clone();
        metadata.insert("directed".to_owned(), true.into());
        PropletCreate {
            proplet_id: self.proplet.clone(),
            namespace: self.config.namespace.clone(),
            metadata,
            tasks: Some(self.held()),
        }
    }

    /// A sign of life, or its opposite.
    fn alive(&self, status: AliveStatus) -> PropletAlive {
        PropletAlive {
            proplet_id: self.proplet.clone(),
            status,
            namespace: self.config.namespace.clone(),
            tasks: Some(self.held()),
        }
    }

    /// Every task that has not ended.
    fn held(&self) -> Vec<HeldTask> {
        let running = self.running.iter().map(|(task, run)| (task, run.attempt));
        let waiting = self.waiting.iter().map(|(task, w)| (task, w.start.attempt));
        let queued = self.queue.iter().map(|start| (&start.id, start.attempt));
        let held = running.chain(waiting).chain(queued);
        held.map(|(id, attempt)| HeldTask { id: id.clone(), attempt }).collect()
    }
}
