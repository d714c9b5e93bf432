//! Round starts: one pinned task a participant, once. What the round is for is nobody's business
//! here.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use protocol::{
    AbsentReason, Digest, Entry, Letter as _, Output, PropletId, RoundId, Timestamp,
    message::{RoundAbsent, RoundStart},
};

use crate::{
    Notice,
    act::Acts,
    record::{self, ABSENT, ROUNDS},
    rollout::Rollout,
    state::State,
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
    /// Whose tasks have been begun, in order, while not everybody's have.
    pub(crate) up_to: Option<PropletId>,
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
        Self {
            fingerprint,
            at,
            up_to: None,
            absent: BTreeMap::new(),
            repeated: Repeated::default(),
        }
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

    /// Notes how far the tasks of a round have been begun.
    pub(crate) fn roll(&mut self, id: &RoundId, up_to: Option<PropletId>) -> Option<Entry> {
        let started = self.by_id.get_mut(id)?;
        started.up_to = up_to;
        Some(record::round(id, started))
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
        let rollout = Rollout::new(Box::new(start), now, None);
        match self.wanted_by(&rollout) {
            Some(wanted) => self.await_image(wanted, rollout, out),
            None => self.roll_out(rollout, now, out),
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
