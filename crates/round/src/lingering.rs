//! Rounds of asynchronous sessions after their end: who was slow goes on, and what it makes counts
//! in whichever round of the session is open by then.
//!
//! ```text
//! round 7 (on v6) ends --> lingers: v6, and who has not been counted --> forgotten, once
//!                              |                                         everybody has, or it is
//!                              v an update on v6                         too many versions behind
//! round 9 (on v8) collects ----+---> counted in round 9, two versions behind
//! ```
//!
//! What lingers is kept as it was while the round was open, so a late update is judged by the round
//! that it was made for, and is marked as counted there in the step in which it counts here. While
//! no round of the session is open, updates are held without a verdict; their senders say them
//! again, so what is held may be lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use protocol::{Digest, ModelVersion, PropletId, RoundId, SessionId, Timestamp};

use crate::{
    Kept, Note, Rounds,
    ending::forget,
    record,
    round::{Round, Stream},
    turn::Turn,
};

/// Updates that are held.
const HELD_MAX: usize = 10_000;
/// A session whose rounds linger is over if none of it has opened for twice a round's timeout, at
/// most so long, and a minute.
const PATIENCE_MAX: Duration = Duration::from_secs(3600);
const PATIENCE_MIN: Duration = Duration::from_secs(60);

/// What lingers, and what is held.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lingering {
    pub(crate) rounds: BTreeMap<RoundId, Round>,
    /// When a session of which no round is open is taken to be over.
    ends: BTreeMap<SessionId, Timestamp>,
    held: BTreeMap<(RoundId, PropletId), Bytes>,
    held_len: u64,
    /// Something has changed for what is held.
    due: bool,
    /// Nothing ends while nobody can be heard.
    connected: bool,
}

impl Lingering {
    pub(crate) fn get(&self, round: &RoundId) -> Option<&Round> {
        self.rounds.get(round)
    }

    pub(crate) fn restore(&mut self, round: Round) {
        self.rounds.insert(round.spec.id.clone(), round);
    }

    /// The numbers of the model that a round started from.
    pub(crate) fn base_values(&self, round: &RoundId) -> Option<Kept> {
        self.rounds.get(round)?.base.as_ref()?.values.clone()
    }

    pub(crate) fn blobs(&self) -> impl Iterator<Item = Digest> {
        self.rounds.values().flat_map(Round::blobs)
    }

    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.ends.values().min().copied()
    }

    /// What is held may be judged now.
    pub(crate) const fn ask_again(&mut self) {
        self.due = true;
    }

    /// Those of a session.
    fn of<'a>(&'a self, stream: &'a Stream) -> impl Iterator<Item = &'a Round> {
        self.rounds.values().filter(|round| round.is_of(&stream.session))
    }

    /// Nobody can say that a session goes on.
    pub(crate) fn disconnected(&mut self) {
        self.connected = false;
        self.ends.clear();
    }

    /// Holds an update, if all that are held take no more than `room`.
    pub(crate) fn hold(
        &mut self,
        key: (RoundId, PropletId),
        payload: Bytes,
        room: u64,
        turn: &mut Turn,
    ) {
        self.take_held(&key);
        let len = payload.len() as u64;
        if self.held.len() >= HELD_MAX || self.held_len + len > room {
            return;
        }
        let (round, proplet) = key.clone();
        turn.note(Note::Held { round, proplet });
        self.held_len += len;
        self.held.insert(key, payload);
    }

    fn take_held(&mut self, key: &(RoundId, PropletId)) -> Option<Bytes> {
        let payload = self.held.remove(key)?;
        self.held_len -= payload.len() as u64;
        Some(payload)
    }

    /// Those that count go first: of what is held, only `room` bytes stay.
    pub(crate) fn let_go(&mut self, room: u64) {
        while self.held_len > room
            && let Some((_, payload)) = self.held.pop_last()
        {
            self.held_len -= payload.len() as u64;
        }
    }

    /// The session may be over; how long that is waited for.
    fn may_end(&mut self, session: &SessionId, now: Timestamp) {
        if !self.connected {
            return;
        }
        let timeouts = self.rounds.values().filter(|round| round.is_of(session));
        let timeouts = timeouts.map(|round| round.deadline.since(round.opened_at));
        if let Some(longest) = timeouts.max() {
            let patience = longest.saturating_mul(2).min(PATIENCE_MAX) + PATIENCE_MIN;
            self.ends.insert(session.clone(), now + patience);
        }
    }
}

impl Round {
    pub(crate) fn is_of(&self, session: &SessionId) -> bool {
        self.spec.stream.as_ref().is_some_and(|stream| stream.session == *session)
    }

    /// Whether an update that starts where this round did may count in one that starts at `newest`.
    fn is_recent(&self, newest: ModelVersion, staleness_max: u64) -> bool {
        newest.0.saturating_sub(self.spec.base.version.0) <= staleness_max
    }

    /// Whether some of its participants may count in a round that starts at `newest`.
    pub(crate) fn lingers(&self, newest: ModelVersion) -> bool {
        let stream = self.spec.stream.as_ref().filter(|_| self.base.is_some());
        stream.is_some_and(|stream| {
            self.is_recent(newest, stream.staleness_max) && self.pending().next().is_some()
        })
    }
}

impl Rounds {
    /// Keeps what has to be known of a round after its end.
    pub(crate) fn linger(&mut self, round: Round, turn: &mut Turn) {
        turn.keep(record::keep_round(&round));
        self.lingering.rounds.insert(round.spec.id.clone(), round);
    }

    /// Who may count in the rounds after this one, of those that were asked so far.
    pub(crate) fn outstanding(&self, round: &Round, newest: ModelVersion) -> BTreeSet<PropletId> {
        let Some(stream) = &round.spec.stream else { return BTreeSet::new() };
        let all = self.lingering.of(stream).chain([round]);
        let recent = all.filter(|it| it.lingers(newest));
        recent.flat_map(Round::pending).cloned().collect()
    }

    /// Whether nobody is left who could contribute to this round, as a participant of its own or of
    /// an earlier one.
    pub(crate) fn is_alone(&self, id: &RoundId) -> bool {
        let Some(round) = self.open.get(id) else { return false };
        let Some(stream) = &round.spec.stream else { return round.has_heard_all() };
        let newest = round.spec.base.version;
        let awaits = |it: &Round| it.pending().next().is_some();
        let mut recent =
            self.lingering.of(stream).filter(|it| it.is_recent(newest, stream.staleness_max));
        !awaits(round) && !recent.any(awaits)
    }

    /// The session of a round goes on: what came in between may count in it.
    pub(crate) fn goes_on(&mut self, id: &RoundId, turn: &mut Turn) {
        let Some(stream) = self.open.get(id).and_then(|round| round.spec.stream.as_ref()) else {
            return;
        };
        self.lingering.ends.remove(&stream.session);
        self.lingering.ask_again();
        self.settle(id, turn);
    }

    /// Forgets what can no longer count, now that a round has ended and the next one starts at
    /// `newest`.
    pub(crate) fn trim_lingering(
        &mut self,
        stream: &Stream,
        newest: ModelVersion,
        turn: &mut Turn,
    ) {
        let open = self.open.values();
        let needed = open.flat_map(|round| round.counted.values());
        let needed: BTreeSet<&RoundId> =
            needed.filter_map(|counted| Some(&counted.made_for.as_ref()?.round)).collect();
        let over = self.lingering.of(stream).filter(|it| !it.lingers(newest));
        let over = over.map(|it| it.spec.id.clone()).filter(|id| !needed.contains(id));
        for id in over.collect::<Vec<_>>() {
            self.forget_lingering(&id, turn);
        }
        if !self.open.values().any(|round| round.is_of(&stream.session)) {
            self.lingering.may_end(&stream.session, turn.now);
        }
    }

    /// After a time without the broker nobody knows whether a session goes on.
    pub(crate) fn await_sessions(&mut self, now: Timestamp) {
        self.lingering.connected = true;
        let sessions = self.lingering.rounds.values().filter_map(|it| it.spec.stream.clone());
        for Stream { session, .. } in sessions.collect::<Vec<_>>() {
            if !self.open.values().any(|round| round.is_of(&session)) {
                self.lingering.may_end(&session, now);
            }
        }
    }

    /// Forgets what belongs to sessions that are over.
    pub(crate) fn expire_lingering(&mut self, turn: &mut Turn) {
        let ends = self.lingering.ends.iter().filter(|(_, end)| turn.now >= **end);
        for session in ends.map(|(session, _)| session.clone()).collect::<Vec<_>>() {
            self.lingering.ends.remove(&session);
            // It goes on with an evaluation, say.
            if self.open.values().any(|round| round.spec.session.as_ref() == Some(&session)) {
                self.lingering.may_end(&session, turn.now);
                continue;
            }
            let rounds = self.lingering.rounds.values().filter(|round| round.is_of(&session));
            for id in rounds.map(|round| round.spec.id.clone()).collect::<Vec<_>>() {
                self.forget_lingering(&id, turn);
            }
            self.lingering.ask_again();
        }
    }

    /// The outcome goes on saying whose updates counted, in whichever round.
    fn forget_lingering(&mut self, id: &RoundId, turn: &mut Turn) {
        let Some(round) = self.lingering.rounds.remove(id) else { return };
        forget(&round, turn);
        let counted = round.counted.into_iter().map(|(proplet, it)| (proplet, it.fingerprint));
        if let Some((ordinal, outcome)) = self.outcomes.amend(id, counted) {
            turn.keep_with(|| record::keep_outcome(ordinal, outcome));
        }
    }

    /// Judges again what nobody could judge.
    pub(crate) fn attend_held(&mut self, turn: &mut Turn) {
        while std::mem::take(&mut self.lingering.due) {
            for key in self.lingering.held.keys().cloned().collect::<Vec<_>>() {
                // It is not opened for nothing.
                if self.has_to_wait(&key.0, &key.1) {
                    continue;
                }
                if let Some(payload) = self.lingering.take_held(&key) {
                    self.update(payload, turn);
                }
            }
        }
    }

    /// A participant that is slow will not contribute either.
    pub(crate) fn late_absent(&mut self, id: &RoundId, proplet: PropletId, turn: &mut Turn) {
        let Some(round) = self.lingering.rounds.get_mut(id) else { return };
        if !round.pending().any(|pending| *pending == proplet) {
            return;
        }
        round.absent.insert(proplet.clone());
        turn.keep(record::keep_absent(id, &proplet));
        turn.note(Note::Absent { round: id.clone(), proplet });
        let goal = round.spec.stream.clone().and_then(|stream| self.collecting(&stream));
        if let Some(goal) = goal {
            self.settle(&goal, turn);
        }
    }
}
