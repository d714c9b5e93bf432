//! The life of a task: taken, queued, waiting for its model, running, ended.

use protocol::{
    Entry, Letter as _, Manifest, ModelUri, RoundId, TaskId, Topic,
    message::{TaskResults, TaskStart, TaskStop},
};
use serde_json::Value;

use super::{Agent, Kit, Run, Waiting, contributing::release};
use crate::{
    BaseModel, ENV_PROPLET_ID, Effect, Failure, Need, Note, models::Known, purpose::Purpose,
    record, turn::Turn,
};

/// How a task ended.
pub(super) enum End {
    Result(Value),
    /// Its output is kept as an update to this round.
    Update {
        round: RoundId,
        result: Value,
    },
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Agent {
    /// Takes a task on, unless it is known already: a repeated start is answered, an older
    /// attempt is history, a newer one takes the place of the old.
    pub(super) fn take(&mut self, start: Box<TaskStart>, turn: &mut Turn) {
        let meant = start.proplet_id.as_ref().is_none_or(|meant| *meant == self.proplet);
        if self.link.closing || !meant {
            return;
        }
        // Whoever knows this proplet says to it alone what is meant for it alone.
        turn.stranger |= start.proplet_id.is_some() && !start.directed;
        match self.attempt_held(&start.id) {
            Some(held) if held > start.attempt => return,
            Some(held) if held == start.attempt => {
                turn.alive = true;
                return;
            }
            Some(held) => self.give_up(&start.id, held, turn),
            None => {}
        }
        match self.results.get(&start.id) {
            Some(kept) if kept.attempt > start.attempt => {}
            Some(kept) if kept.attempt == start.attempt => self.repeat_result(&start.id, turn),
            Some(_) | None => self.enqueue(start, turn),
        }
    }

    /// Ends a task that has not ended; one that has is answered with its result.
    pub(super) fn stop(&mut self, stop: &TaskStop, turn: &mut Turn) {
        let everybody = stop.broadcast == Some(true) || stop.proplet_id.is_none();
        let meant = everybody || stop.proplet_id.as_ref() == Some(&self.proplet);
        if self.link.closing || !meant {
            return;
        }
        let Some(attempt) = self.attempt_held(&stop.id) else {
            return self.repeat_result(&stop.id, turn);
        };
        self.let_go(&stop.id, attempt, turn);
        self.conclude(&stop.id, attempt, Failure::cancelled().into(), turn);
    }

    /// Ends the tasks whose model or module did not come. While the broker is away, nothing can.
    pub(super) fn give_up_waiting(&mut self, turn: &mut Turn) {
        if !self.link.up {
            return;
        }
        let late = self.waiting.iter().filter(|(_, waiting)| waiting.until <= turn.now);
        let late: Vec<(TaskId, u32, Need)> = late
            .filter_map(|(task, waiting)| {
                let need = self.depends(waiting)?.clone();
                Some((task.clone(), waiting.start.attempt, need))
            })
            .collect();
        for (task, attempt, need) in late {
            // The next attempt asks anew what the model is: it may be cut differently by now.
            if let Need::Model(model) = &need {
                self.models.forget(model);
            }
            self.let_go(&task, attempt, turn);
            let within = self.config.model_wait.as_secs_f64();
            let message = format!("{need} did not arrive within {within} s");
            self.conclude(&task, attempt, missing(&need, message).into(), turn);
        }
    }

    /// Begins queued tasks while there are free slots, oldest first.
    pub(super) fn fill_slots(&mut self, turn: &mut Turn) {
        while self.slots_taken() < self.config.concurrency.max(1) {
            let Some(start) = self.queue.pop_front() else { return };
            match Purpose::of(&start.env) {
                Ok(purpose) => self.begin(start, purpose, turn),
                Err(failure) => self.conclude(&start.id, start.attempt, failure.into(), turn),
            }
        }
    }

    /// Interrupts everything that has a slot; what waits in the queue is sent again by the
    /// manager.
    pub(super) fn interrupt_all(&mut self, turn: &mut Turn) {
        let waiting = self.waiting.iter().map(|(task, w)| (task.clone(), w.start.attempt));
        let running = self.running.iter().map(|(task, run)| (task.clone(), run.attempt));
        for (task, attempt) in waiting.chain(running).collect::<Vec<_>>() {
            self.let_go(&task, attempt, turn);
            self.conclude(&task, attempt, Failure::interrupted().into(), turn);
        }
        self.queue.clear();
    }

    /// Reports what the last process left running when it died.
    pub(super) fn report_interrupted(&mut self, turn: &mut Turn) {
        let Some(cut_off) = &mut self.cut_off else { return };
        for (task, attempt) in std::mem::take(&mut cut_off.interrupted) {
            turn.keep(|| Entry::forget(record::RUNNING, &task));
            self.conclude(&task, attempt, Failure::interrupted().into(), turn);
        }
    }

    fn enqueue(&mut self, start: Box<TaskStart>, turn: &mut Turn) {
        let bytes: usize = self.queue.iter().map(|queued| weight(queued)).sum();
        let slots_free = self.slots_taken() < self.config.concurrency.max(1);
        let full = self.queue.len() >= self.config.tasks_queued_max
            || bytes.saturating_add(weight(&start)) > self.config.queued_bytes_max;
        if full && !(slots_free && self.queue.is_empty()) {
            let message = format!("queue full: {} tasks of {bytes} bytes wait", self.queue.len());
            let failure = Failure::new("queue_full", message);
            return self.conclude(&start.id, start.attempt, failure.into(), turn);
        }
        self.queue.push_back(start);
    }

    fn begin(&mut self, start: Box<TaskStart>, purpose: Purpose, turn: &mut Turn) {
        if let (Some(_), Err(failure)) = (purpose.control_of(), self.grants_state()) {
            return self.conclude(&start.id, start.attempt, failure.into(), turn);
        }
        let (mut lacks, mut kit) = (vec![], Kit::default());
        if let Some(blob) = module_of(&start) {
            let (bytes, max) = (blob.bytes(), self.config.module_bytes_max);
            if bytes > max {
                let message = format!("the task's module has {bytes} bytes, at most {max} are run");
                let failure = Failure::new("fetch_too_large", message);
                return self.conclude(&start.id, start.attempt, failure.into(), turn);
            }
            let need = Need::Module(blob.sha256());
            if !self.awaits(&need) {
                self.fetch(need.clone(), blob.clone(), turn);
            }
            lacks.push(need);
        }
        if let Some(model) = purpose.model() {
            match self.models.get(model) {
                Some(Known::Whole(payload)) => kit.model = Some(BaseModel::Here(payload)),
                known => {
                    self.seek(model, known, turn);
                    lacks.push(Need::Model(model.clone()));
                }
            }
        }
        if let Some(round) = purpose.control_of().cloned() {
            lacks.push(self.seek_variate(round, turn));
        }
        let until = turn.now + self.config.model_wait;
        let waiting = Waiting { start, purpose, lacks, kit, until };
        if waiting.lacks.is_empty() {
            return self.run(waiting, turn);
        }
        self.waiting.insert(waiting.start.id.clone(), waiting);
    }

    /// Has a model come, unless it is on its way.
    fn seek(&mut self, model: &ModelUri, known: Option<Known>, turn: &mut Turn) {
        let need = Need::Model(model.clone());
        if self.awaits(&need) {
            return;
        }
        match known {
            Some(Known::Pieces(blob)) => self.fetch(need, *blob, turn),
            Some(Known::Whole(_)) | None => turn.listen(Topic::Model { uri: model.clone() }),
        }
    }

    /// Runs a task that lacks nothing any more.
    pub(super) fn run(&mut self, ready: Waiting, turn: &mut Turn) {
        let Waiting { mut start, purpose, mut kit, .. } = ready;
        let (task, attempt) = (start.id.clone(), start.attempt);
        let name = || self.proplet.to_string();
        start.env.entry(ENV_PROPLET_ID.to_owned()).or_insert_with(name);
        turn.keep(|| record::running(&task, attempt));
        turn.note(Note::Started { task: task.clone(), attempt });
        let own = kit.variate.take().map(|variate| self.own(&start, &purpose, *variate));
        let (variates, own) = own.unzip();
        turn.effect(Effect::Run { start, model: kit.model.clone(), variates });
        turn.alive = true;
        self.measure_later(turn);
        self.running.insert(task, Run { attempt, purpose, kit, packing: None, own });
    }

    /// The one place where a task gets its result.
    pub(super) fn conclude(&mut self, task: &TaskId, attempt: u32, end: End, turn: &mut Turn) {
        let mut results = TaskResults {
            task_id: task.clone(),
            proplet_id: self.proplet.clone(),
            results: Value::Null,
            error: None,
            attempt: Some(attempt),
            code: None,
        };
        let completed = || Note::Completed { task: task.clone(), attempt };
        let (round, note) = match end {
            End::Result(result) => {
                results.results = result;
                (None, completed())
            }
            End::Update { round, result } => {
                results.results = result;
                (Some(round), completed())
            }
            End::Failed(failure) => {
                results.error = Some(failure.message.clone());
                results.code = Some(failure.code.clone());
                (None, Note::Failed { task: task.clone(), attempt, failure })
            }
        };
        turn.note(note);
        let envelope = results.seal();
        let payload = envelope.payload.clone();
        self.results.keep((results, payload), round, &self.config, turn);
        turn.promise(envelope);
    }

    /// Says a kept result again, and the update it speaks of if that still waits for its verdict.
    fn repeat_result(&mut self, task: &TaskId, turn: &mut Turn) {
        let Some(kept) = self.results.get(task) else { return };
        turn.publish(kept.envelope());
        if let Some(round) = &kept.round {
            self.updates.hurry(round);
        }
    }

    /// Makes room for a newer attempt of the same task.
    fn give_up(&mut self, task: &TaskId, attempt: u32, turn: &mut Turn) {
        self.let_go(task, attempt, turn);
        turn.note(Note::Superseded { task: task.clone(), attempt });
    }

    /// Takes a task out of the queue, or out of its waiting, or cancels its run.
    pub(super) fn let_go(&mut self, task: &TaskId, attempt: u32, turn: &mut Turn) {
        self.queue.retain(|queued| queued.id != *task);
        if let Some(waiting) = self.waiting.remove(task) {
            for need in waiting.lacks {
                self.let_fetch_go(&need, turn);
            }
            release(&waiting.kit, turn);
        }
        if let Some(run) = self.running.remove(task) {
            turn.keep(|| Entry::forget(record::RUNNING, task));
            // What it made is being packed: that comes to its end by itself.
            if run.packing.is_none() {
                turn.effect(Effect::Cancel { task: task.clone(), attempt });
            }
            let cut_off = self.cut_off.get_or_insert_default();
            cut_off.ending.insert((task.clone(), attempt), run.kit);
        }
    }

    fn attempt_held(&self, task: &TaskId) -> Option<u32> {
        let queued = || self.queue.iter().find(|queued| queued.id == *task).map(|q| q.attempt);
        let waiting = || self.waiting.get(task).map(|waiting| waiting.start.attempt);
        self.running.get(task).map(|run| run.attempt).or_else(waiting).or_else(queued)
    }

    pub(super) fn awaits(&self, need: &Need) -> bool {
        self.waiting.values().any(|waiting| waiting.lacks.contains(need))
    }

    /// What this task lacks that somebody else has.
    pub(super) fn depends<'a>(&self, waiting: &'a Waiting) -> Option<&'a Need> {
        waiting.lacks.iter().find(|need| !self.fetches.is_local(need))
    }
}

/// The module of a task, if it comes in pieces.
fn module_of(start: &TaskStart) -> Option<&Manifest> {
    let whole = start.file.as_ref().is_some_and(|file| !file.is_empty());
    start.file_blob.as_ref().filter(|_| !whole)
}

pub(super) fn missing(need: &Need, message: String) -> Failure {
    match need {
        Need::Model(_) => Failure::new("no_model", message),
        Need::Module(_) => Failure::new("no_module", message),
        Need::Variate(_) => Failure::new("no_variate", message),
    }
}

/// Roughly the bytes that a queued start keeps in memory.
fn weight(start: &TaskStart) -> usize {
    let env: usize = start.env.iter().map(|(name, value)| name.len() + value.len()).sum();
    let args: usize = start.cli_args.iter().map(String::len).sum();
    let blob = start.file_blob.as_ref().map_or(0, |blob| 32 * blob.count() as usize);
    1024 + start.file.as_ref().map_or(0, String::len) + blob + env + args
}
