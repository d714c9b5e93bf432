//! Where a task goes, and the messages that send it there and call it back.

use protocol::{
    Letter as _, Manifest, Output, PropletId, TaskId, Timestamp, TraceField,
    message::{TaskStart, TaskState, TaskStop},
};

use crate::{
    Notice, Refusal,
    act::Acts,
    limits::SEND_LEN_MAX,
    proplet::Proplet,
    spec::{FileRef, Placed, Spec},
    state::State,
    task::{Stage, Task},
};

/// When a start that is missing goes out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Once it has had the time to arrive, and not too often.
    InTime,
    /// At once: whoever dropped it, it is not under way any more.
    Now,
}

/// The module of a task, on its way.
enum Carried {
    Nothing,
    Whole(FileRef),
    Pieces(Manifest),
}

impl Carried {
    /// Roughly what it adds to a start.
    fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Whole(file) => file.len.saturating_mul(4).div_ceil(3),
            Self::Pieces(blob) => 256 + 44 * blob.count() as usize,
        }
    }
}

/// JSON makes this much of a character at most.
const ESCAPED_MAX: usize = 6;
/// What stands in a start beside its wording and its module.
const START_ROOM: usize = 8 << 10;
/// Starts sent again in vain before the run counts as cut off.
const RESENDS_MAX: u32 = 10;

impl State {
    /// The proplets on which a task of this wording would start now, in order.
    pub(crate) fn place(&self, spec: &Spec) -> Result<Vec<PropletId>, Refusal> {
        match &spec.placed {
            Placed::Pinned(proplet) => match self.proplets.get(proplet) {
                None => Err(Refusal::PropletUnknown(proplet.clone())),
                Some(known) if !known.is_alive() => Err(Refusal::PropletOffline(proplet.clone())),
                Some(_) => Ok(vec![proplet.clone()]),
            },
            Placed::Anywhere => {
                let chosen = self.proplets.least_busy(None);
                chosen.map(|proplet| vec![proplet]).ok_or(Refusal::NoneAlive)
            }
            Placed::Everywhere if self.proplets.alive_len() == 0 => Err(Refusal::NoneAlive),
            Placed::Everywhere => {
                let mut all: Vec<_> = self.proplets.alive().map(|it| it.id.clone()).collect();
                all.sort_unstable();
                Ok(all)
            }
        }
    }

    /// Begins a new attempt of a task where it may run now.
    pub(crate) fn start(
        &mut self,
        id: &TaskId,
        now: Timestamp,
        out: &mut Acts,
    ) -> Result<(), Refusal> {
        let task = self.tasks.get(id).ok_or_else(|| Refusal::NoTask(id.clone()))?;
        task.at_rest("start")?;
        let on = self.place(&task.spec)?;
        self.check_len(task, &on)?;
        self.change(id, now, out, |task| task.start(on, now))?;
        self.send(id, out);
        Ok(())
    }

    /// A start that the broker does not take would never arrive. Most are known to be short without
    /// being written.
    fn check_len(&self, task: &Task, on: &[PropletId]) -> Result<(), Refusal> {
        let max = self.limits.message_len_max;
        let longest = |to| {
            let file = self.carried(task, to);
            let text = file.len().saturating_add(ESCAPED_MAX * task.spec.len());
            if text.saturating_add(START_ROOM) <= max {
                return 0;
            }
            self.letter(task, to, file).seal().payload.len()
        };
        let lens: Vec<usize> = match &task.spec.placed {
            Placed::Everywhere => vec![longest(None)],
            Placed::Anywhere | Placed::Pinned(_) => on.iter().map(|it| longest(Some(it))).collect(),
        };
        match lens.into_iter().find(|len| *len > max) {
            Some(len) => Err(Refusal::StartTooLong { id: task.id.clone(), len, max }),
            None => Ok(()),
        }
    }

    /// Sends the latest attempt to all that it was meant for.
    pub(crate) fn send(&mut self, id: &TaskId, out: &mut Acts) {
        let Some(task) = self.tasks.get(id) else { return };
        let on = task.running_on();
        if !task.spec.is_broadcast() {
            for proplet in on {
                self.send_to(id, &proplet, out);
            }
            return;
        }
        let (directed, others): (Vec<_>, Vec<_>) =
            on.into_iter().partition(|proplet| self.is_directed(proplet));
        for proplet in directed {
            self.send_to(id, &proplet, out);
        }
        if !others.is_empty()
            && let Some(task) = self.tasks.get(id)
        {
            let file = self.carried(task, None);
            let letter = self.letter(task, None, file);
            self.post(&letter, out);
        }
    }

    /// Sends the latest attempt to one proplet. What would be too much for one step is left to
    /// the proplet's next word on what it holds.
    fn send_to(&mut self, id: &TaskId, proplet: &PropletId, out: &mut Acts) {
        let Some(task) = self.tasks.get(id) else { return };
        let file = self.carried(task, Some(proplet));
        let len = file.len();
        let lists = self.proplets.get(proplet).is_some_and(|it| it.lists_tasks);
        if lists && self.sent_len > 0 && self.sent_len + len > SEND_LEN_MAX {
            return;
        }
        let letter = self.letter(task, Some(proplet), file);
        self.sent_len += len;
        self.post(&letter, out);
    }

    fn post(&mut self, letter: &TaskStart, out: &mut Acts) {
        if let Some(blob) = &letter.file_blob {
            self.showing.name(blob.sha256());
        }
        self.counts.starts_sent += 1;
        out.push(Output::Publish(letter.seal()));
    }

    /// How a task's module goes to a proplet, or to everybody that listens to the shared topic.
    fn carried(&self, task: &Task, to: Option<&PropletId>) -> Carried {
        let pulled = task.pinned.as_ref().and_then(|pinned| pinned.file);
        let file = task.spec.file().or_else(|| pulled.filter(|_| self.hands_over(to)));
        let Some(file) = file else { return Carried::Nothing };
        let knows = |id: &PropletId| self.proplets.get(id).is_some_and(Proplet::takes_pieces);
        let known = match to {
            Some(proplet) => knows(proplet),
            // Also those that will listen by then.
            None => self.proplets.alive().all(Proplet::takes_pieces),
        };
        let long = known && file.len > self.limits.inline_len_max;
        match self.files.manifest(&file.digest).filter(|_| long) {
            Some(blob) => Carried::Pieces(blob.clone()),
            None => Carried::Whole(file),
        }
    }

    fn letter(&self, task: &Task, to: Option<&PropletId>, file: Carried) -> TaskStart {
        let spec = &task.spec;
        let pinned = task.pinned.as_deref();
        let signature = pinned.and_then(|it| it.signature.clone());
        let is_carried = !matches!(file, Carried::Nothing);
        let (file, file_blob) = match file {
            Carried::Nothing => (None, None),
            Carried::Whole(file) => (self.files.text(file), None),
            Carried::Pieces(blob) => (None, Some(blob)),
        };
        TaskStart {
            id: task.id.clone(),
            name: spec.name.clone(),
            image_url: pinned.map(|it| it.image.clone()).or_else(|| spec.image_url.clone()),
            // Who gets the image itself, reads it there.
            module_signature: signature.filter(|_| is_carried),
            file,
            file_blob,
            inputs: spec.inputs.clone(),
            cli_args: spec.cli_args.clone(),
            env: spec.env.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            daemon: spec.daemon,
            proplet_id: to.cloned(),
            state: TaskState::Scheduled,
            attempt: task.attempt(),
            traceparent: spec.parent().map(TraceField::Parent),
            directed: to.is_some_and(|proplet| self.is_directed(proplet)),
        }
    }

    /// Sends a start again to a proplet that should have it and has not; after many times in
    /// vain, the run counts as cut off.
    pub(crate) fn resend(
        &mut self,
        (id, proplet): (&TaskId, &PropletId),
        urgency: Urgency,
        now: Timestamp,
        out: &mut Acts,
    ) {
        let Some(run) = self.tasks.get(id).and_then(|task| task.run(proplet)) else { return };
        if urgency == Urgency::InTime && run.resend_at > now {
            return;
        }
        if run.resends >= RESENDS_MAX {
            let why = format!("{proplet} did not take it after {RESENDS_MAX} repetitions");
            self.cut_off((id, proplet), why, now, out);
            return;
        }
        let attempt = self.tasks.note_resend(id, proplet, now);
        self.send_to(id, proplet, out);
        self.counts.starts_resent += 1;
        let (id, proplet) = (id.clone(), proplet.clone());
        out.push(Output::Effect(Notice::Resent { id, proplet, attempt }));
    }

    /// What this proplet has not confirmed goes out again.
    pub(crate) fn resend_unconfirmed(
        &mut self,
        proplet: &PropletId,
        urgency: Urgency,
        now: Timestamp,
        out: &mut Acts,
    ) {
        let Some(known) = self.proplets.get(proplet) else { return };
        for id in known.active().to_vec() {
            let run = self.tasks.get(&id).and_then(|task| task.run(proplet));
            if run.is_some_and(|run| run.stage == Stage::Sent) {
                self.resend((&id, proplet), urgency, now, out);
            }
        }
    }

    /// Tells proplets to stop a task.
    pub(crate) fn call_back(&mut self, id: &TaskId, from: Vec<PropletId>, out: &mut Acts) {
        let broadcast = self.tasks.get(id).is_some_and(|task| task.spec.is_broadcast());
        let mut everybody = false;
        for proplet in from {
            if broadcast && !self.is_directed(&proplet) {
                everybody = true;
            } else {
                self.stop_on(id, proplet, out);
            }
        }
        if everybody {
            let stop = TaskStop {
                id: id.clone(),
                proplet_id: None,
                broadcast: Some(true),
                directed: false,
            };
            self.counts.stops_sent += 1;
            out.push(Output::Publish(stop.seal()));
        }
    }

    /// Tells one proplet to stop a task.
    pub(crate) fn stop_on(&mut self, id: &TaskId, proplet: PropletId, out: &mut Acts) {
        let directed = self.is_directed(&proplet);
        let stop =
            TaskStop { id: id.clone(), proplet_id: Some(proplet), broadcast: None, directed };
        self.counts.stops_sent += 1;
        out.push(Output::Publish(stop.seal()));
    }
}
