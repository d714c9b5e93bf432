//! How rounds end: with a model, with an evaluation, or with a reason; and what is forgotten then.

use std::collections::BTreeMap;

use protocol::{
    Entry, FailReason, ModelUri, ModelVersion, Output, RoundId,
    message::{Purpose, RoundComplete, RoundFailed},
};

use crate::{
    Effect, Kept, Note, Rounds,
    outcome::{Ending, Members, Outcome},
    record,
    round::{Phase, Round},
    turn::Turn,
};

impl Rounds {
    /// `uri` is what the round made; of an evaluation, what it looked at.
    pub(crate) fn complete(&mut self, id: &RoundId, uri: ModelUri, turn: &mut Turn) {
        self.forget_outcomes(id, turn);
        let Some(round) = self.open.get(id) else { return };
        let mut participants = Vec::with_capacity(round.taken().count());
        participants.extend(round.taken().map(|(proplet, _)| proplet.clone()));
        let duration = round.closed_at.unwrap_or(turn.now).since(round.opened_at);
        let complete = RoundComplete {
            round_id: id.clone(),
            model_version: uri.version,
            model_topic: uri.clone(),
            num_updates: participants.len(),
            total_samples: round.total_samples(),
            completed_at: turn.now,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            participants,
            metrics: round.metrics(),
            contributions: round.contributions(),
            rejected: round.rejected.clone(),
            purpose: round.spec.purpose,
            quantiles: match round.spec.purpose {
                Purpose::Train => BTreeMap::new(),
                Purpose::Evaluate => round.quantiles(),
            },
            late: round.taken().filter(|(_, counted)| counted.made_for.is_some()).count(),
            outstanding: self.outstanding(round, uri.version),
        };
        turn.note(Note::Complete {
            round: id.clone(),
            model: uri.clone(),
            num_updates: complete.num_updates,
            total_samples: complete.total_samples,
        });
        self.end(id, Ending::Complete(complete), uri.version, turn);
    }

    pub(crate) fn fail(
        &mut self,
        id: &RoundId,
        reason: FailReason,
        error: Option<String>,
        turn: &mut Turn,
    ) {
        self.forget_outcomes(id, turn);
        let Some(round) = self.open.get(id) else { return };
        let counted = round.counted.len();
        let failed = RoundFailed {
            round_id: id.clone(),
            reason,
            num_updates: counted,
            k_of_n: round.spec.k,
            failed_at: turn.now,
            error: error.clone(),
            outstanding: self.outstanding(round, round.spec.base.version),
        };
        let newest = round.spec.base.version;
        turn.note(Note::Failed { round: id.clone(), reason, counted, error });
        self.end_series(id, turn);
        self.end(id, Ending::Failed(failed), newest, turn);
    }

    /// Before the outcome of this round is put together: of a large round it takes as much memory as
    /// those that are forgotten for it.
    fn forget_outcomes(&mut self, id: &RoundId, turn: &mut Turn) {
        let Some(round) = self.open.get(id) else { return };
        for old in self.outcomes.make_room(round.counted.len()) {
            turn.keep(Entry::forget(record::OUTCOME, &old));
        }
    }

    /// Promises the outcome and remembers it in place of the round, or beside what lingers of it;
    /// `newest` is the model that the next round starts from.
    fn end(&mut self, id: &RoundId, ending: Ending, newest: ModelVersion, turn: &mut Turn) {
        let Some(mut round) = self.open.remove(id) else { return };
        self.withdraw_variate(&round, turn);
        let digest = round.publication().map(|ours| ours.digest);
        if let Some(ours) = round.publication() {
            self.handing.end(&ours.uri);
            turn.keep(Entry::forget(record::MODEL, id));
            let model = ours.blob.as_ref().map(protocol::Manifest::sha256);
            turn.out.extend(model.map(|blob| Output::Effect(Effect::Drop(blob))));
        }
        self.let_values_go(&mut round, turn);
        let counted = round.counted.iter().map(|(proplet, it)| (proplet.clone(), it.fingerprint));
        let (counted, start) = (Members::from(counted), round.spec.start);
        let stream = round.spec.stream.clone();
        round.phase = Phase::Lingering;
        if round.lingers(newest) {
            self.linger(round, turn);
        } else {
            forget(&round, turn);
        }
        let outcome = Outcome { start, ending, counted, digest };
        turn.keep_with(|| record::keep_outcome(self.outcomes.ordinal(), &outcome));
        turn.promise(outcome.seal());
        self.outcomes.push(outcome);
        if let Some(stream) = stream {
            self.trim_lingering(&stream, newest, turn);
        }
        if !self.open.values().any(|round| round.publication().is_some()) {
            self.repetition.end();
        }
    }

    /// The numbers of its updates are needed no longer.
    fn let_values_go(&mut self, round: &mut Round, turn: &mut Turn) {
        self.kept_len -= round.kept_len();
        let id = &round.spec.id;
        for (proplet, counted) in &mut round.counted {
            match counted.values.take() {
                Some(Kept::Here(_)) => turn
                    .keep_with(|| Entry::forget(record::UPDATE, record::member_key(id, proplet))),
                Some(Kept::Stored(blob)) => turn.effect(Effect::Drop(blob.sha256)),
                None => {}
            }
        }
    }
}

/// Forgets everything that is kept of a round beside its outcome.
pub(crate) fn forget(round: &Round, turn: &mut Turn) {
    let id = &round.spec.id;
    turn.keep(Entry::forget(record::ROUND, id));
    if let Some(base) = record::keep_base(round) {
        turn.keep(Entry::forget(base.table, &base.key));
    }
    turn.out.extend(round.blobs().into_iter().map(|blob| Output::Effect(Effect::Drop(blob))));
    for proplet in round.counted.keys() {
        turn.keep_with(|| Entry::forget(record::COUNTED, record::member_key(id, proplet)));
    }
    for proplet in &round.absent {
        turn.keep(Entry::forget(record::ABSENT, record::member_key(id, proplet)));
    }
}
