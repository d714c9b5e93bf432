//! Round starts: one pinned task a participant, once. What the round is for is nobody's business
//! here.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use protocol::{
    AbsentReason, Digest, Entry, Letter as _, Output, PropletId, RoundId, TaskId, Timestamp,
    message::{RoundAbsent, RoundStart},
};

use crate::{
    Notice, Spec,
    act::Acts,
    file,
    record::{self, ABSENT, ROUNDS},
    spec::{FileRef, Placed},
    state::State,
    task::Task,
};

/// Absences said again to one repeated start; those left out are named to the next ones, in turn.
const REPEATS_MAX: usize = 1000;
/// A start that is repeated sooner than this is not answered.
const REPEAT_PAUSE: Duration = Duration::from_secs(2);

/// Rounds that were started, the latest ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds {
    by_id: BTreeMap<RoundId, Started>,
    by_age: BTreeSet<(Timestamp, RoundId)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Started {
    pub(crate) fingerprint: Digest,
    pub(crate) at: Timestamp,
    /// Who was said to be absent, and why.
    pub(crate) absent: BTreeMap<PropletId, (AbsentReason, Option<String>)>,
    repeated: Repeated,
}

/// How far the absences of a round were said again; not kept.
#[derive(Clone, Debug, Default)]
struct Repeated {
    at: Option<Timestamp>,
    /// Whom the last turn named last; nobody means that all are through.
    up_to: Option<PropletId>,
}

impl Started {
    pub(crate) fn new(fingerprint: Digest, at: Timestamp) -> Self {
        Self { fingerprint, at, absent: BTreeMap::new(), repeated: Repeated::default() }
    }

    /// Who is to be named again now: so many in a turn, and no two turns at once.
    fn next_turn(&mut self, now: Timestamp) -> Vec<PropletId> {
        if self.repeated.at.is_some_and(|at| now.since(at) < REPEAT_PAUSE) {
            return vec![];
        }
        self.repeated.at = Some(now);
        let from = self.repeated.up_to.take().map_or(Bound::Unbounded, Bound::Excluded);
        let left = self.absent.range((from, Bound::Unbounded));
        let turn: Vec<_> = left.take(REPEATS_MAX).map(|(proplet, _)| proplet.clone()).collect();
        let last = self.absent.last_key_value().map(|(proplet, _)| proplet);
        self.repeated.up_to = turn.last().filter(|it| Some(*it) != last).cloned();
        turn
    }
}

impl Rounds {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn get(&self, id: &RoundId) -> Option<&Started> {
        self.by_id.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &RoundId) -> Option<&mut Started> {
        self.by_id.get_mut(id)
    }

    pub(crate) fn insert(&mut self, id: RoundId, started: Started) {
        self.by_age.insert((started.at, id.clone()));
        self.by_id.insert(id, started);
    }

    fn pop_oldest(&mut self) -> Option<(RoundId, Started)> {
        let (_, id) = self.by_age.pop_first()?;
        self.by_id.remove_entry(&id)
    }
}

impl State {
    pub(crate) fn start_round(&mut self, start: RoundStart, now: Timestamp, out: &mut Acts) {
        self.counts.round_starts += 1;
        let fingerprint = start.fingerprint();
        match self.rounds.get(&start.round_id) {
            Some(known) if known.fingerprint == fingerprint => {
                self.counts.round_repeats += 1;
                return self.repeat_absences(&start.round_id, now, out);
            }
            Some(_) => {
                self.counts.round_conflicts += 1;
                let round = start.round_id;
                return out.push(Output::Effect(Notice::RoundConflict { round }));
            }
            None => {}
        }
        self.remember_round(&start.round_id, fingerprint, now, out);
        let file = start.file.as_deref().map(|text| self.module(text)).transpose();
        let hyperparams: Arc<str> = start.hyperparams.as_str().into();
        let mut dispatched = 0;
        for proplet in &start.participants {
            let begun = match &file {
                Ok(file) => {
                    let spec = spec(&start, &hyperparams, proplet);
                    self.begin(spec, file.as_ref(), now, out)
                }
                Err(why) => Err((AbsentReason::TaskFailed, Some(why.clone()))),
            };
            match begun {
                Ok(()) => dispatched += 1,
                Err((reason, error)) => {
                    let (round_id, proplet_id) = (start.round_id.clone(), proplet.clone());
                    self.say_absent(RoundAbsent { round_id, proplet_id, reason, error }, out);
                }
            }
        }
        let absent = start.participants.len() - dispatched;
        out.push(Output::Effect(Notice::Round { round: start.round_id, dispatched, absent }));
    }

    /// Makes one participant's task, and sends it.
    fn begin(
        &mut self,
        mut spec: Spec,
        file: Option<&bytes::Bytes>,
        now: Timestamp,
        out: &mut Acts,
    ) -> Result<(), (AbsentReason, Option<String>)> {
        let pinned = spec.pinned().cloned();
        let known = pinned.as_ref().and_then(|proplet| self.proplets.get(proplet));
        let Some(known) = known else { return Err((AbsentReason::Unknown, None)) };
        if !known.is_alive() {
            return Err((AbsentReason::NotAlive, None));
        }
        let failed = |why: String| (AbsentReason::TaskFailed, Some(why));
        spec.check().map_err(|why| failed(why.to_string()))?;
        if self.tasks.len() >= self.limits.tasks_max {
            return Err(failed(format!("{} tasks are held, no more", self.limits.tasks_max)));
        }
        let id = task_id(&spec.name, now);
        if self.tasks.get(&id).is_some() {
            return Err(failed(format!("task {id} exists already")));
        }
        spec.file = file.map(|bytes| -> FileRef { self.files.take(bytes.clone(), out) });
        self.add(Task::new(id.clone(), self.tasks.seq_next(), spec, now), out);
        self.start(&id, now, out).map_err(|why| failed(why.to_string()))
    }

    fn module(&self, text: &str) -> Result<bytes::Bytes, String> {
        let bytes = file::decode(text).map_err(|why| format!("file is not base64: {why}"))?;
        if self.files.has_room(&bytes, self.limits.files_len_max) {
            Ok(bytes)
        } else {
            let (held, max) = (self.files.len(), self.limits.files_len_max);
            Err(format!("file has {} bytes, {held} of at most {max} are taken", bytes.len()))
        }
    }

    fn remember_round(&mut self, id: &RoundId, fingerprint: Digest, at: Timestamp, out: &mut Acts) {
        let started = Started::new(fingerprint, at);
        out.push(Output::Keep(record::round(id, &started)));
        self.rounds.insert(id.clone(), started);
        while self.rounds.len() > self.limits.rounds_max {
            let Some((oldest, forgotten)) = self.rounds.pop_oldest() else { break };
            out.push(Output::Keep(Entry::forget(ROUNDS, &oldest)));
            for proplet in forgotten.absent.keys() {
                let key = record::absent_key(&oldest, proplet);
                out.push(Output::Keep(Entry::forget(ABSENT, key)));
            }
        }
    }

    /// Says, durably, that nobody has to wait for this participant.
    pub(crate) fn say_absent(&mut self, letter: RoundAbsent, out: &mut Acts) {
        self.counts.absents_sent += 1;
        out.push(Output::Promise(letter.seal()));
        if let Some(started) = self.rounds.get_mut(&letter.round_id) {
            out.push(Output::Keep(record::absence(&letter)));
            started.absent.insert(letter.proplet_id, (letter.reason, letter.error));
        }
    }

    /// Whoever repeats a start may have missed what was said to the first.
    fn repeat_absences(&mut self, round: &RoundId, now: Timestamp, out: &mut Acts) {
        let Some(started) = self.rounds.get_mut(round) else { return };
        for proplet_id in started.next_turn(now) {
            let Some((reason, error)) = started.absent.get(&proplet_id).cloned() else { continue };
            let letter = RoundAbsent { round_id: round.clone(), proplet_id, reason, error };
            out.push(Output::Publish(letter.seal()));
        }
    }
}

fn spec(start: &RoundStart, hyperparams: &Arc<str>, proplet: &PropletId) -> Spec {
    let text = |text: String| -> Arc<str> { text.into() };
    let mut spec = Spec::named(format!("fl-round-{}-{proplet}", start.round_id));
    spec.image_url = start.task_wasm_image.clone();
    spec.placed = Placed::Pinned(proplet.clone());
    spec.env = BTreeMap::from([
        ("ROUND_ID".to_owned(), text(start.round_id.to_string())),
        ("MODEL_URI".to_owned(), text(start.model_uri.to_string())),
        ("HYPERPARAMS".to_owned(), Arc::clone(hyperparams)),
        ("PROPLET_ID".to_owned(), text(proplet.to_string())),
    ]);
    spec
}

/// A UUID of version 8: out of what the task is, since a core has no dice.
fn task_id(name: &str, now: Timestamp) -> TaskId {
    let at = now.as_micros().to_be_bytes();
    let digest = Digest::of_parts([name.as_bytes(), &at]).to_string();
    let (a, b, c) = (&digest[..8], &digest[8..12], &digest[12..15]);
    let (d, e) = (&digest[15..18], &digest[18..30]);
    format!("{a}-{b}-8{c}-a{d}-{e}").parse().expect("hexadecimal digits and dashes are an id")
}
