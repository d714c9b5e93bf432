//! What proplets say of themselves, held against what was sent to them. A start that did not
//! arrive is sent again; what should not run is stopped.

use std::{collections::BTreeMap, time::Duration};

use protocol::{
    Output, PropletId, TaskId, Timestamp,
    message::{AliveStatus, HeldTask, PropletAlive, PropletCreate},
};

use crate::{
    Notice,
    act::Acts,
    dispatch::Urgency,
    proplet::{Metadata, Proplet},
    record,
    state::State,
    task::{Phase, Stage, Task},
};

/// Tasks of one list that are looked at.
const HELD_MAX: usize = 10_000;
/// Strays of one list that are stopped; the rest is there in the next list.
const STRAYS_MAX: usize = 256;
/// A proplet may not have heard yet that its word on an ended task has arrived.
const ENDED_GRACE: Duration = Duration::from_secs(2);
/// How old the kept time of a proplet's last sign of life may get.
const KEPT_AGE_MAX: Duration = Duration::from_secs(60);

/// What a held task means.
enum Finding {
    AsSent,
    Arrived,
    GoesOn,
    Stray,
}

impl State {
    pub(crate) fn hear_create(&mut self, create: PropletCreate, now: Timestamp, out: &mut Acts) {
        self.counts.proplet_creates += 1;
        let id = create.proplet_id.clone();
        if !self.admit(&id, out) {
            return;
        }
        let lists_tasks = create.tasks.is_some();
        self.sign_of_life(&id, now, out, |known| {
            known.namespace = create.namespace;
            known.metadata = Metadata::of(create.metadata);
            known.lists_tasks = lists_tasks;
            known.kept_at = None;
        });
        match create.tasks {
            Some(held) => {
                let held = self.compare(&id, held, now, out);
                self.resend_missing((&id, &held), Urgency::Now, now, out);
            }
            None => self.resend_unconfirmed(&id, Urgency::InTime, now, out),
        }
        self.rerun_waiting_for(&id, now, out);
    }

    pub(crate) fn hear_alive(&mut self, alive: PropletAlive, now: Timestamp, out: &mut Acts) {
        self.counts.proplet_alives += 1;
        let id = alive.proplet_id;
        match alive.status {
            AliveStatus::Offline => {
                if self.proplets.is_alive(&id) {
                    self.lose(&id, "it said so", now, out);
                }
                return;
            }
            AliveStatus::Alive => {}
        }
        if !self.admit(&id, out) {
            return;
        }
        let lists_tasks = alive.tasks.is_some();
        let was_alive = self.sign_of_life(&id, now, out, |known| {
            if known.lists_tasks != lists_tasks {
                known.lists_tasks = lists_tasks;
                known.kept_at = None;
            }
        });
        if let Some(held) = alive.tasks {
            let held = self.compare(&id, held, now, out);
            self.resend_missing((&id, &held), Urgency::InTime, now, out);
        }
        if !was_alive {
            self.rerun_waiting_for(&id, now, out);
        }
    }

    /// Whether there is room for this proplet.
    fn admit(&mut self, id: &PropletId, out: &mut Acts) -> bool {
        let max = self.limits.proplets_max;
        let full = self.proplets.get(id).is_none() && self.proplets.len() >= max;
        if full {
            self.ignore("proplet", format!("{id}: {max} proplets are known, no more"), out);
        }
        !full
    }

    /// Whether it was alive before.
    fn sign_of_life(
        &mut self,
        id: &PropletId,
        now: Timestamp,
        out: &mut Acts,
        learn: impl FnOnce(&mut Proplet),
    ) -> bool {
        let records = self.limits.records;
        let mut was_there = false;
        self.proplets.heard(id, now + self.limits.liveness, |known, was_alive| {
            was_there = was_alive;
            learn(known);
            known.last_alive_at = Some(now);
            if !was_alive {
                out.push(Output::Effect(Notice::Alive { proplet: id.clone() }));
            }
            let fresh = known.kept_at.is_some_and(|at| now.since(at) < KEPT_AGE_MAX);
            if !was_alive || !fresh {
                known.kept_at = Some(now);
                records.keep(out, || record::proplet(known));
            }
        });
        was_there
    }

    /// Learns from what a proplet holds, and stops what it should not; returns it in order.
    fn compare(
        &mut self,
        id: &PropletId,
        held: Vec<HeldTask>,
        now: Timestamp,
        out: &mut Acts,
    ) -> BTreeMap<TaskId, u32> {
        let held = held.into_iter().take(HELD_MAX).map(|task| (task.id, task.attempt));
        let held: BTreeMap<TaskId, u32> = held.collect();
        let mut strays = 0;
        for (task, attempt) in &held {
            match self.finding(id, task, *attempt, now) {
                Finding::AsSent => {}
                Finding::Arrived => {
                    let arrived = self.change(task, now, out, |task| task.confirm(id, now));
                    assert!(arrived.is_ok(), "a run that was sent can be confirmed");
                }
                Finding::GoesOn => {
                    let resumed = self.change(task, now, out, |task| task.resume(id, now));
                    assert!(resumed.is_ok(), "a waiting task can go on where it was");
                }
                Finding::Stray if strays == STRAYS_MAX => {}
                Finding::Stray => {
                    strays += 1;
                    self.stop_on(task, id.clone(), out);
                    let (id, proplet) = (task.clone(), id.clone());
                    out.push(Output::Effect(Notice::Stray { id, proplet }));
                }
            }
        }
        held
    }

    fn finding(&self, on: &PropletId, id: &TaskId, attempt: u32, now: Timestamp) -> Finding {
        let Some(task) = self.tasks.get(id) else { return Finding::Stray };
        if attempt > task.attempt() {
            return Finding::Stray;
        }
        match task.phase() {
            Phase::Pending => Finding::Stray,
            Phase::Active(active) => match active.runs.get(on) {
                None => Finding::Stray,
                // An older attempt makes way when the newer one arrives.
                Some(_) if !task.is_latest(attempt) => Finding::AsSent,
                Some(run) if run.stage == Stage::Sent => Finding::Arrived,
                Some(_) => Finding::AsSent,
            },
            Phase::Waiting(waiting) if waiting.last == *on && task.is_latest(attempt) => {
                Finding::GoesOn
            }
            Phase::Waiting(_) => Finding::Stray,
            Phase::Ended(ended) if now.since(ended.finished_at) < ENDED_GRACE => Finding::AsSent,
            Phase::Ended(_) => Finding::Stray,
        }
    }

    fn resend_missing(
        &mut self,
        (id, held): (&PropletId, &BTreeMap<TaskId, u32>),
        urgency: Urgency,
        now: Timestamp,
        out: &mut Acts,
    ) {
        let Some(known) = self.proplets.get(id) else { return };
        let has = |task: &Task| held.get(&task.id).is_some_and(|at| task.is_latest(*at));
        let mut missing = known.active().to_vec();
        missing.retain(|task| self.tasks.get(task).is_some_and(|task| !has(task)));
        for task in missing {
            self.resend((&task, id), urgency, now, out);
        }
    }
}
