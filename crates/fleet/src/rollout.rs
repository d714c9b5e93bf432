//! A round's tasks, begun so many at a time: a start that names a hundred thousand participants
//! neither stops everything else for as long as they take, nor has all that is said and kept of
//! them in memory at once.

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use protocol::{
    AbsentReason, Digest, Entry, Letter as _, Output, PropletId, RoundId, TRACEPARENT_ENV, TaskId,
    Timestamp,
    message::{PURPOSE_ENV, RoundAbsent, RoundStart, STRATEGY_ENV, StrategySpec},
};

use crate::{
    Env, Found, Notice, Spec, act::Acts, file, image::Pinned, record::STARTS, spec::Placed,
    state::State, task::Task, trace::RoundTrace,
};

/// Tasks that are begun in one step.
const BATCH: usize = 1000;
/// What is said meanwhile is heard between two steps.
const PAUSE: Duration = Duration::from_millis(10);
/// How soon is looked again whether those have been heard that were not.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Rounds whose tasks are not all begun, in the order of their starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rollouts(VecDeque<Rollout>);

/// A round whose tasks are being begun.
#[derive(Clone, Debug)]
pub(crate) struct Rollout {
    start: Box<RoundStart>,
    /// When the start was heard: a part of each task's id, so that none is made twice.
    at: Timestamp,
    /// The last participant that was dealt with; they come in order.
    up_to: Option<PropletId>,
    /// Those among them that may be there, and have not been heard since the connection.
    unheard: BTreeSet<PropletId>,
    due: Timestamp,
    dispatched: usize,
    absent: usize,
    /// Whether its start is on disk.
    kept: bool,
    /// What its image is, if that had to be found out.
    found: Option<Result<Found, String>>,
    /// What the tasks have in common.
    shared: Option<Shared>,
}

#[derive(Clone, Debug)]
struct Shared {
    file: Result<Option<Bytes>, String>,
    pinned: Option<Arc<Pinned>>,
    /// What their environments have in common.
    env: Env,
    /// The name of the variable that holds the proplet's.
    proplet_id: Arc<str>,
    trace: Option<RoundTrace>,
}

impl Rollout {
    pub(crate) fn new(start: Box<RoundStart>, at: Timestamp, up_to: Option<PropletId>) -> Self {
        let (dispatched, absent, shared) = (0, 0, None);
        let (due, kept, found) = (Timestamp::ZERO, false, None);
        let unheard = BTreeSet::new();
        Self { start, at, up_to, unheard, due, dispatched, absent, kept, found, shared }
    }

    /// One whose start is on disk until all its tasks have been begun.
    pub(crate) fn kept(self) -> Self {
        Self { kept: true, ..self }
    }

    pub(crate) const fn start(&self) -> &RoundStart {
        &self.start
    }

    /// From here on, its tasks are of this image and no other.
    pub(crate) fn found(&mut self, found: Result<Found, String>) {
        if let Ok(found) = &found {
            self.start.task_wasm_image = Some(found.image.clone());
        }
        self.found = Some(found);
    }

    pub(crate) const fn round(&self) -> &RoundId {
        &self.start.round_id
    }

    /// Whether its tasks are too many for one step.
    fn is_long(&self) -> bool {
        self.start.participants.len() > BATCH
    }

    fn next(&self) -> Vec<PropletId> {
        let from = self.up_to.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        self.start.participants.range((from, Bound::Unbounded)).take(BATCH).cloned().collect()
    }

    /// Those that a life of this process has dealt with.
    fn passed(&self) -> impl Iterator<Item = &PropletId> {
        let to = self.up_to.as_ref();
        self.start.participants.iter().take_while(move |it| to.is_some_and(|to| *it <= to))
    }

    fn task(&self, proplet: &PropletId) -> TaskId {
        task_id(&task_name(&self.start.round_id, proplet), self.at)
    }

    fn is_over(&self) -> bool {
        let last = self.start.participants.last();
        last.is_none_or(|last| self.up_to.as_ref().is_some_and(|up_to| up_to >= last))
    }
}

impl Rollouts {
    pub(crate) fn push(&mut self, rollout: Rollout) {
        self.0.push_back(rollout);
    }

    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.0.iter().map(|rollout| rollout.due).min()
    }

    fn pop_due(&mut self, now: Timestamp) -> Option<Rollout> {
        let place = self.0.iter().position(|rollout| rollout.due <= now)?;
        self.0.remove(place)
    }
}

impl State {
    /// Begins a new round's tasks; those that are too many for one step later.
    pub(crate) fn roll_out(&mut self, mut rollout: Rollout, now: Timestamp, out: &mut Acts) {
        if rollout.is_long() {
            self.keep_start(&mut rollout, out);
        }
        self.begin_next(rollout, now, out);
    }

    fn keep_start(&self, rollout: &mut Rollout, out: &mut Acts) {
        rollout.kept = true;
        let start = &rollout.start;
        self.limits
            .records
            .keep(out, || Entry::put_bytes(STARTS, &start.round_id, start.seal().payload.to_vec()));
    }

    /// After a restart: whoever was neither given a task nor called absent was waited for.
    pub(crate) fn resume_rolling(&mut self) {
        for rollout in &mut self.rollouts.0 {
            let absent = self.rounds.get(rollout.round()).map(|started| &started.absent);
            let is_open = |proplet: &&PropletId| {
                self.tasks.get(&rollout.task(proplet)).is_none()
                    && absent.is_none_or(|absent| !absent.contains_key(*proplet))
            };
            rollout.unheard = rollout.passed().filter(is_open).cloned().collect();
        }
    }

    /// Begins what has become due of the tasks that were put off.
    pub(crate) fn go_on_rolling(&mut self, now: Timestamp, out: &mut Acts) {
        if let Some(rollout) = self.rollouts.pop_due(now) {
            self.begin_next(rollout, now, out);
        }
    }

    fn begin_next(&mut self, mut rollout: Rollout, now: Timestamp, out: &mut Acts) {
        let shared = match rollout.shared.take() {
            Some(shared) => shared,
            None => self.shared(&rollout, out),
        };
        let next = rollout.next();
        if let Some(last) = next.last() {
            rollout.up_to = Some(last.clone());
        }
        for proplet in mem::take(&mut rollout.unheard).into_iter().chain(next) {
            let begun = self.begin((&rollout, &shared), &proplet, now, out);
            match begun {
                Ok(()) => rollout.dispatched += 1,
                Err((AbsentReason::Unknown | AbsentReason::NotAlive, None))
                    if now < self.settles_at =>
                {
                    rollout.unheard.insert(proplet);
                }
                Err((reason, error)) => {
                    rollout.absent += 1;
                    let (round_id, proplet_id) = (rollout.round().clone(), proplet.clone());
                    self.say_absent(RoundAbsent { round_id, proplet_id, reason, error }, out);
                }
            }
        }
        let unheard = rollout.unheard.len();
        if unheard > 0 && !rollout.kept {
            self.keep_start(&mut rollout, out);
            let round = rollout.round().clone();
            out.push(Output::Effect(Notice::Unheard { round, unheard }));
        }
        if rollout.kept {
            out.extend(self.rounds.roll(rollout.round(), rollout.up_to.clone()).map(Output::Keep));
        }
        if !rollout.is_over() {
            rollout.shared = Some(shared);
            rollout.due = now + PAUSE;
            return self.rollouts.0.push_front(rollout);
        }
        if unheard > 0 {
            rollout.shared = Some(shared);
            rollout.due = self.settles_at.min(now + LOOK_AGAIN);
            return self.rollouts.0.push_back(rollout);
        }
        if rollout.kept {
            out.push(Output::Keep(Entry::forget(STARTS, rollout.round())));
        }
        if let Some(file) = shared.pinned.as_ref().and_then(|pinned| pinned.file) {
            self.release_file(file, out);
        }
        let Rollout { start, dispatched, absent, .. } = rollout;
        out.push(Output::Effect(Notice::Round { round: start.round_id, dispatched, absent }));
    }

    fn shared(&mut self, rollout: &Rollout, out: &mut Acts) -> Shared {
        let start = &rollout.start;
        let pinned = match &rollout.found {
            None => Ok(None),
            // Held until all tasks have it, too.
            Some(Ok(found)) => self.pin(found, out).map(|pinned| Some(Arc::new(pinned))),
            Some(Err(why)) => Err(why.clone()),
        };
        let (file, pinned) = match pinned {
            Ok(pinned) => (start.file.as_deref().map(|text| self.module(text)).transpose(), pinned),
            Err(why) => (Err(why), None),
        };
        let trace = RoundTrace::of(start, self.limits.keeps_spans);
        let env = Env::common(common_env(start, trace.is_some()));
        Shared { file, pinned, env, proplet_id: "PROPLET_ID".into(), trace }
    }

    /// Makes one participant's task, and sends it.
    fn begin(
        &mut self,
        (rollout, shared): (&Rollout, &Shared),
        proplet: &PropletId,
        now: Timestamp,
        out: &mut Acts,
    ) -> Result<(), (AbsentReason, Option<String>)> {
        let failed = |why: String| (AbsentReason::TaskFailed, Some(why));
        let file = shared.file.as_ref().map_err(|why| failed(why.clone()))?;
        let known = self.proplets.get(proplet).ok_or((AbsentReason::Unknown, None))?;
        if !known.is_alive() {
            return Err((AbsentReason::NotAlive, None));
        }
        let mut spec = shared.spec(&rollout.start, proplet);
        spec.check().map_err(|why| failed(why.to_string()))?;
        if self.tasks.len() >= self.limits.tasks_max {
            return Err(failed(format!("{} tasks are held, no more", self.limits.tasks_max)));
        }
        let id = task_id(&spec.name, rollout.at);
        if self.tasks.get(&id).is_some() {
            return Err(failed(format!("task {id} exists already")));
        }
        spec.file = file.as_ref().map(|bytes| Box::new(self.files.take(bytes.clone(), out)));
        // It is kept in the next step of its life, which is this one's.
        let mut task = Task::new(id.clone(), self.tasks.seq_next(), spec, now);
        task.pinned.clone_from(&shared.pinned);
        if let Some(file) = task.pinned.as_ref().and_then(|pinned| pinned.file) {
            self.files.share(file);
        }
        self.tasks.put(task);
        self.start(&id, now, out).map_err(|why| failed(why.to_string()))
    }

    fn module(&self, text: &str) -> Result<Bytes, String> {
        let bytes = file::decode(text).map_err(|why| format!("file is not base64: {why}"))?;
        if self.files.has_room(&bytes, self.limits.files_len_max) {
            Ok(bytes)
        } else {
            let (held, max) = (self.files.len(), self.limits.files_len_max);
            Err(format!("file has {} bytes, {held} of at most {max} are taken", bytes.len()))
        }
    }
}

impl Shared {
    fn spec(&self, start: &RoundStart, proplet: &PropletId) -> Spec {
        let mut spec = Spec::named(task_name(&start.round_id, proplet));
        spec.image_url = start.task_wasm_image.clone();
        spec.placed = Placed::Pinned(proplet.clone());
        let trace = self.trace.map(|trace| trace.task(&start.round_id, proplet).to_string());
        let trace = trace.map(|text| (TRACEPARENT_ENV.into(), text.into()));
        let own = [(Arc::clone(&self.proplet_id), proplet.as_str().into())];
        spec.env = Env::alike(&self.env, own.into_iter().chain(trace));
        spec
    }
}

/// What the environments of a round's tasks have in common. Tasks that are traced say so
/// themselves.
fn common_env(start: &RoundStart, traced: bool) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
    let always = [
        ("ROUND_ID", start.round_id.as_str().into()),
        ("MODEL_URI", start.model_uri.to_string().into()),
        ("HYPERPARAMS", start.hyperparams.as_str().into()),
    ];
    let control = start.has_control();
    // Said only where the round asks for it.
    let asked = [
        start.purpose.env().map(|value| (PURPOSE_ENV, value.into())),
        start.encoding.as_deref().map(|encoding| ("ENCODING", encoding.into())),
        control.then(|| (STRATEGY_ENV, StrategySpec::SCAFFOLD.into())),
    ];
    let own = start.env.iter().filter(move |(name, _)| !(traced && *name == TRACEPARENT_ENV));
    let own = own.map(|(name, value)| (name.as_str(), value.as_str().into()));
    let all = always.into_iter().chain(asked.into_iter().flatten()).chain(own);
    all.map(|(name, value)| (name.into(), value))
}

fn task_name(round: &RoundId, proplet: &PropletId) -> String {
    format!("fl-round-{round}-{proplet}")
}

/// A UUID of version 8: out of what the task is, since a core has no dice.
fn task_id(name: &str, at: Timestamp) -> TaskId {
    let at = at.as_micros().to_be_bytes();
    let digest = Digest::of_parts([name.as_bytes(), &at]).to_string();
    let (a, b, c) = (&digest[..8], &digest[8..12], &digest[12..15]);
    let (d, e) = (&digest[15..18], &digest[18..30]);
    format!("{a}-{b}-8{c}-a{d}-{e}").parse().expect("hexadecimal digits and dashes are an id")
}
