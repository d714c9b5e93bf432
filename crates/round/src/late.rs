//! Updates of rounds that have closed, in asynchronous sessions: which round they count in, and the
//! verdict on them.

use bytes::Bytes;
use protocol::{Digest, Entry, Output, PropletId, Rejection, RoundId};

use crate::{
    Effect, Kept, Note, Objection, Rounds,
    arrival::Content,
    judging::Judgement,
    record,
    round::{Counted, MadeFor, Round, Stream},
    rounds::accepted,
    turn::Turn,
};

/// Where a late update goes.
enum Goal {
    /// It counts in this round, if it is right.
    Round(RoundId),
    Nowhere(Objection),
    /// Nobody can say yet.
    NotYet,
}

impl Rounds {
    /// The round of a session that takes updates now.
    pub(crate) fn collecting(&self, stream: &Stream) -> Option<RoundId> {
        let mut open = self.open.values();
        let found = open.find(|round| round.is_collecting() && round.is_of(&stream.session));
        found.map(|round| round.spec.id.clone())
    }

    /// Whether an update of this round counts in a later one, if at all.
    pub(crate) fn is_late(&self, id: &RoundId, proplet: &PropletId) -> bool {
        let closed = self.open.get(id).filter(|it| !it.is_collecting() && it.spec.stream.is_some());
        let will_linger = closed
            .is_some_and(|it| it.spec.members.name(proplet) && !it.counted.contains_key(proplet));
        will_linger || self.lingering.get(id).is_some()
    }

    fn goal(&self, id: &RoundId, proplet: &PropletId) -> Goal {
        let Some(late) = self.lingering.get(id) else { return Goal::NotYet };
        let goal = late.spec.stream.as_ref().and_then(|stream| self.collecting(stream));
        let Some(open) = goal.and_then(|goal| self.open.get(&goal)) else { return Goal::NotYet };
        let most = open.spec.stream.as_ref().map_or(0, |stream| stream.staleness_max);
        let base = &late.spec.base;
        match open.staleness(base) {
            Some(staleness) if staleness <= most => {}
            Some(_) | None => {
                let (id, on) = (&open.spec.id, &open.spec.base);
                let what = format!("based on {base}, round {id} takes {most} versions before {on}");
                return Goal::Nowhere(Objection::new(Rejection::StaleBase, what));
            }
        }
        let (Some(ours), Some(theirs)) = (&open.base, &late.base) else { return Goal::NotYet };
        if let Some(difference) = ours.schema.difference(&theirs.schema) {
            return Goal::Nowhere(Objection::new(Rejection::Shape, difference));
        }
        // One participant counts once in a round, with the update that it was asked for there if that
        // may still come: this one is for the next.
        let own_is_due = open.spec.members.name(proplet) && !open.absent.contains(proplet);
        if own_is_due || open.counted.contains_key(proplet) {
            return Goal::NotYet;
        }
        Goal::Round(open.spec.id.clone())
    }

    /// The verdict on a late update, or none yet.
    pub(crate) fn rule_late(
        &mut self,
        (id, proplet): (RoundId, PropletId),
        (content, base): (Result<Content, Objection>, Option<Digest>),
        payload: Bytes,
        turn: &mut Turn,
    ) {
        if let Some(late) = self.lingering.get(&id) {
            let fingerprint = content.as_ref().ok().map(Content::fingerprint);
            let before = late.counted.get(&proplet).map(|counted| counted.fingerprint);
            if before.is_some() && before == fingerprint {
                return turn.publish(accepted(&id, &proplet));
            }
            if before.is_some() || !late.spec.members.name(&proplet) {
                let closed = Objection::new(Rejection::RoundClosed, "the round has ended");
                return self.reject(Some(id), Some(proplet), closed, turn);
            }
        }
        let goal = match self.goal(&id, &proplet) {
            Goal::Round(goal) => goal,
            Goal::Nowhere(objection) => return self.turn_away((id, proplet), objection, turn),
            Goal::NotYet => return self.put_off((id, proplet), content, payload, turn),
        };
        let room = self.room();
        let Some(late) = self.lingering.get(&id) else { return };
        let judgement = match content.and_then(|content| late.check_base(base).map(|()| content)) {
            Ok(content) => {
                let fingerprint = content.fingerprint();
                let weighed = late.weigh((&proplet, content), fingerprint, &self.rules, room);
                weighed.unwrap_or_else(Judgement::Reject)
            }
            Err(objection) => Judgement::Reject(objection),
        };
        match judgement {
            Judgement::Count(counted) => self.count_late((id, proplet), &goal, counted, turn),
            Judgement::Receive(offer, fingerprint) => {
                let Some(holds) = late.holds() else { return };
                self.arriving.offered((offer, fingerprint), holds, turn);
            }
            Judgement::Reject(objection) => self.turn_away((id, proplet), objection, turn),
            Judgement::NoRoom => {
                let kept_len = self.kept_len;
                turn.note(Note::NoRoom { round: id, proplet, kept_len });
            }
            Judgement::Repeated | Judgement::TooEarly => {}
        }
    }

    /// Holds an update until it can be judged. What is wrong with it in any case is said at once, so
    /// that it takes the place of no better one.
    fn put_off(
        &mut self,
        key: (RoundId, PropletId),
        content: Result<Content, Objection>,
        payload: Bytes,
        turn: &mut Turn,
    ) {
        match content {
            Ok(_) => self.lingering.hold(key, payload, self.room(), turn),
            Err(objection) => self.turn_away(key, objection, turn),
        }
    }

    /// Whether nothing new can be said of a late update.
    pub(crate) fn has_to_wait(&self, id: &RoundId, proplet: &PropletId) -> bool {
        let is_counted = |late: &Round| late.counted.contains_key(proplet);
        self.is_late(id, proplet)
            && !self.lingering.get(id).is_some_and(is_counted)
            && matches!(self.goal(id, proplet), Goal::NotYet)
    }

    /// An update that came in pieces, and is pinned, is here as a whole.
    pub(crate) fn whole_late(
        &mut self,
        (id, proplet): (RoundId, PropletId),
        result: Result<Counted, Objection>,
        turn: &mut Turn,
    ) {
        let counted = match result {
            Ok(counted) => counted,
            Err(objection) => return self.turn_away((id, proplet), objection, turn),
        };
        let blob = counted.values.as_ref().and_then(Kept::stored).map(|blob| blob.sha256);
        let is_counted = |late: &Round| late.counted.contains_key(&proplet);
        match self.goal(&id, &proplet) {
            Goal::Round(goal) if !self.lingering.get(&id).is_some_and(is_counted) => {
                return self.count_late((id, proplet), &goal, counted, turn);
            }
            Goal::Nowhere(objection) => self.turn_away((id, proplet), objection, turn),
            // Another of its sender came first.
            Goal::Round(_) | Goal::NotYet => {}
        }
        turn.out.extend(blob.map(|blob| Output::Effect(Effect::Drop(blob))));
    }

    /// Counts a late update in the round that is open, and marks it in its own, in one step.
    fn count_late(
        &mut self,
        (id, proplet): (RoundId, PropletId),
        goal: &RoundId,
        counted: Counted,
        turn: &mut Turn,
    ) {
        let Some(late) = self.lingering.rounds.get_mut(&id) else { return };
        let mark = Counted { values: None, ..counted.clone() };
        turn.keep_with(|| record::keep_counted(&id, &proplet, &mark));
        if late.absent.remove(&proplet) {
            turn.keep(Entry::forget(record::ABSENT, record::member_key(&id, &proplet)));
        }
        late.counted.insert(proplet.clone(), mark);
        let base = late.spec.base.clone();
        let staleness = self.open.get(goal).and_then(|open| open.staleness(&base));
        turn.note(Note::Late {
            round: goal.clone(),
            made_for: id.clone(),
            proplet: proplet.clone(),
            staleness: staleness.unwrap_or_default(),
        });
        let counted = Counted { made_for: Some(MadeFor { round: id, base }), ..counted };
        self.count(goal, proplet, counted, turn);
        self.settle(goal, turn);
    }

    /// Rejects an update for good; where others may be late, its sender is not waited for.
    pub(crate) fn turn_away(
        &mut self,
        (id, proplet): (RoundId, PropletId),
        objection: Objection,
        turn: &mut Turn,
    ) {
        let of_stream = self.open.get(&id).is_some_and(|round| round.spec.stream.is_some())
            || self.lingering.get(&id).is_some();
        self.reject(Some(id.clone()), Some(proplet.clone()), objection, turn);
        if of_stream {
            self.absent(&id, proplet, turn);
        }
    }
}
