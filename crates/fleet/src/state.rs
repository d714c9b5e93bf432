//! Everything that the manager knows, and the one way in which a task changes.

use std::{mem, time::Duration};

use protocol::{
    AbsentReason, Entry, EntryError, Output, PropletId, TaskId, Timestamp, message::RoundAbsent,
};

use crate::{
    Counts, Illegal, Limits, News, Notice,
    act::Acts,
    dispatch::Urgency,
    file::Files,
    image::Images,
    metrics::Metrics,
    proplet::{Proplet, Proplets},
    record,
    rollout::Rollouts,
    rounds::Rounds,
    showing::Showing,
    spec::FileRef,
    task::{End, Phase, Task},
    tasks::Tasks,
};

/// A machine that is woken this late was not able to hear anybody.
const DEAF: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) limits: Limits,
    pub(crate) proplets: Proplets,
    pub(crate) tasks: Tasks,
    pub(crate) files: Files,
    pub(crate) showing: Showing,
    pub(crate) rounds: Rounds,
    pub(crate) rollouts: Rollouts,
    pub(crate) images: Images,
    pub(crate) metrics: Metrics,
    pub(crate) counts: Counts,
    /// Bytes of modules sent in this step.
    pub(crate) sent_len: usize,
    /// Whether the broker is there: without it, nobody can be heard, and silence says nothing.
    connected: bool,
    /// When everybody that is there has been heard.
    pub(crate) settles_at: Timestamp,
    /// Restored, and not yet connected.
    restored: bool,
}

impl State {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            proplets: Proplets::default(),
            tasks: Tasks::default(),
            files: Files::new(limits.chunk_len),
            showing: Showing::default(),
            rounds: Rounds::default(),
            rollouts: Rollouts::default(),
            images: Images::default(),
            metrics: Metrics::default(),
            counts: Counts::default(),
            sent_len: 0,
            connected: false,
            settles_at: Timestamp::ZERO,
            restored: false,
        }
    }

    /// Those that were alive before the restart are taken to be alive, until their silence shows
    /// otherwise.
    pub(crate) fn restore(&mut self, entries: Vec<Entry>) -> Result<(), EntryError> {
        record::restore(self, entries)?;
        self.resume_rolling();
        self.restored = true;
        Ok(())
    }

    /// Before anything else: were we able to hear?
    pub(crate) fn wake(&mut self, now: Timestamp) {
        self.sent_len = 0;
        if self.next_expiry().is_some_and(|at| now.since(at) > DEAF) {
            self.proplets.grant(now + self.limits.liveness);
        }
    }

    /// The broker is there: what was not heard while it was away says nothing. What was written
    /// down just before a restart may never have been said.
    pub(crate) fn connected(&mut self, now: Timestamp, out: &mut Acts) {
        self.connected = true;
        self.proplets.grant(now + self.limits.liveness);
        if mem::take(&mut self.restored) {
            if self.rollouts.next_due().is_some() {
                self.settles_at = now + self.limits.settles_after;
            }
            self.show_again(now);
            self.ask_again();
            for proplet in self.alive_where(|it| it.lists_tasks) {
                self.resend_unconfirmed(&proplet, Urgency::Now, now, out);
            }
        }
    }

    /// The broker is gone.
    pub(crate) fn disconnected(&mut self) {
        self.connected = false;
    }

    /// The broker may have forgotten what was on its way. Proplets that say what they hold will
    /// make up for it themselves; the others are sent again what they have not confirmed.
    pub(crate) fn connected_anew(&mut self, now: Timestamp, out: &mut Acts) {
        self.settles_at = now + self.limits.settles_after;
        self.connected(now, out);
        self.show_again(now);
        for proplet in self.alive_where(|it| !it.lists_tasks) {
            self.resend_unconfirmed(&proplet, Urgency::InTime, now, out);
        }
    }

    fn alive_where(&self, which: impl Fn(&Proplet) -> bool) -> Vec<PropletId> {
        self.proplets.alive().filter(|it| which(it)).map(|it| it.id.clone()).collect()
    }

    pub(crate) fn hear(&mut self, news: News, now: Timestamp, out: &mut Acts) {
        match news {
            News::RoundStart(start) => self.start_round(*start, now, out),
            News::RoundUpdate { origin, payload } => self.forward(&origin, &payload, now, out),
            News::PropletCreate(create) => self.hear_create(create, now, out),
            News::PropletAlive(alive) => self.hear_alive(alive, now, out),
            News::PropletMetrics(metrics) => self.hear_proplet_metrics(metrics),
            News::TaskMetrics(metrics) => self.hear_task_metrics(metrics, now, out),
            News::TaskResults(results) => self.hear_results(results, now, out),
            News::ModuleWants(wants) => self.hear_module_wants(&wants, now, out),
        }
    }

    /// What the time has made due.
    pub(crate) fn catch_up(&mut self, now: Timestamp, out: &mut Acts) {
        while let Some(proplet) = self.expired(now) {
            self.lose(&proplet, "nothing heard of it for too long", now, out);
        }
        while let Some(task) = self.tasks.pop_due(now) {
            self.rerun(&task, None, now, out);
        }
        if self.connected {
            self.go_on_rolling(now, out);
            self.go_on_showing(now, out);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let rollout = self.rollouts.next_due().filter(|_| self.connected);
        let showing = self.showing.deadline().filter(|_| self.connected);
        [self.next_expiry(), self.tasks.next_due(), rollout, showing].into_iter().flatten().min()
    }

    /// A proplet that could have been heard, and has been silent for too long.
    fn expired(&self, now: Timestamp) -> Option<PropletId> {
        self.proplets.expired(now).filter(|_| self.connected)
    }

    fn next_expiry(&self) -> Option<Timestamp> {
        self.proplets.next_expiry().filter(|_| self.connected)
    }

    /// Changes one task: keeps its record, moves it in the indexes, and says what follows. A task
    /// that refuses stays as it was.
    pub(crate) fn change(
        &mut self,
        id: &TaskId,
        now: Timestamp,
        out: &mut Acts,
        act: impl FnOnce(&mut Task) -> Result<(), Illegal>,
    ) -> Result<(), Illegal> {
        let (proplets, records) = (&mut self.proplets, self.limits.records);
        let changed = self.tasks.change(id, |task| {
            let (before, places, attempt) = (task.state(), task.places(), task.attempt());
            let (on, had_ended) = (task.running_on(), task.ended().is_some());
            act(task)?;
            task.updated_at = now;
            if task.places() != places {
                proplets.move_task(id, &on, &task.running_on());
            }
            records.keep(out, || record::task(task));
            if before != task.state() || attempt != task.attempt() {
                out.push(Output::Effect(told(task, before)));
            }
            Ok(if had_ended { vec![] } else { failures(task) })
        });
        for letter in changed.expect("only a task that is held is changed")? {
            self.say_absent(letter, out);
        }
        self.shed(out);
        Ok(())
    }

    /// Takes in a new task.
    pub(crate) fn add(&mut self, task: Task, out: &mut Acts) {
        self.limits.records.keep(out, || record::task(&task));
        self.tasks.put(task);
    }

    /// Forgets a task and all that hangs on it.
    pub(crate) fn drop_task(&mut self, id: &TaskId, out: &mut Acts) -> Option<Task> {
        let task = self.tasks.remove(id)?;
        self.metrics.forget(id);
        self.limits.records.keep(out, || Entry::forget(record::TASKS, id));
        for file in task.files() {
            self.release_file(file, out);
        }
        Some(task)
    }

    /// One task less names a module; nobody will ask for the pieces of one that is gone.
    pub(crate) fn release_file(&mut self, file: FileRef, out: &mut Acts) {
        if self.files.release(file, out) {
            self.hide(file.digest, out);
        }
    }

    fn shed(&mut self, out: &mut Acts) {
        while let Some(id) = self.tasks.surplus(self.limits.federated_kept_max) {
            if let Some(task) = self.drop_task(&id, out) {
                let name = task.spec.name.clone();
                out.push(Output::Effect(Notice::Dropped { id, name }));
            }
        }
    }

    /// A message that its sender had no say in.
    pub(crate) fn ignore(&mut self, what: &'static str, why: String, out: &mut Acts) {
        self.counts.ignored += 1;
        out.push(Output::Effect(Notice::Ignored { what, why }));
    }

    /// Whether this proplet wants what concerns it on topics of its own.
    pub(crate) fn is_directed(&self, proplet: &PropletId) -> bool {
        self.proplets.get(proplet).is_some_and(Proplet::is_directed)
    }
}

/// Nobody has to wait for a federated task that has failed for good.
fn failures(task: &Task) -> Vec<RoundAbsent> {
    let Some(ended) = task.ended().filter(|ended| ended.end != End::Completed) else {
        return vec![];
    };
    let Some(round) = task.spec.round() else { return vec![] };
    let failed = ended.errors.iter().filter(|(_, error)| error.is_some());
    let letters = failed.map(|(proplet, error)| RoundAbsent {
        round_id: round.clone(),
        proplet_id: proplet.clone(),
        reason: AbsentReason::TaskFailed,
        error: error.clone(),
    });
    letters.collect()
}

fn told(task: &Task, from: protocol::message::TaskState) -> Notice {
    let why = match task.phase() {
        Phase::Pending => String::new(),
        Phase::Active(active) => {
            let on: Vec<_> = active.runs.proplets().take(4).map(PropletId::as_str).collect();
            format!("on {}", on.join(", "))
        }
        Phase::Waiting(waiting) => waiting.why.clone(),
        Phase::Ended(ended) => ended.error.clone().unwrap_or_default(),
    };
    let (id, name) = (task.id.clone(), task.spec.name.clone());
    let (attempt, traced) = (task.attempt(), task.spec.traced());
    Notice::Task { id, name, from, to: task.state(), attempt, why, traced }
}
