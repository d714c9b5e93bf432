//! How rounds end: with a model, with an evaluation, or with a reason; and what is forgotten then.

use std::collections::BTreeMap;

use protocol::{
    Entry, FailReason, ModelUri, Output, RoundId,
    message::{Purpose, RoundComplete, RoundFailed},
};

use crate::{
    Effect, Kept, Note, Rounds,
    outcome::{Ending, Outcome},
    record,
    turn::Turn,
};

impl Rounds {
    /// `uri` is what the round made; of an evaluation, what it looked at.
    pub(crate) fn complete(&mut self, id: &RoundId, uri: ModelUri, turn: &mut Turn) {
        let Some(round) = self.open.get(id) else { return };
        let duration = round.closed_at.unwrap_or(turn.now).since(round.opened_at);
        let complete = RoundComplete {
            round_id: id.clone(),
            model_version: uri.version,
            model_topic: uri.clone(),
            num_updates: round.taken().count(),
            total_samples: round.total_samples(),
            completed_at: turn.now,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            participants: round.taken().map(|(proplet, _)| proplet.clone()).collect(),
            metrics: round.metrics(),
            contributions: round.contributions(),
            rejected: round.rejected.clone(),
            purpose: round.spec.purpose,
            quantiles: match round.spec.purpose {
                Purpose::Train => BTreeMap::new(),
                Purpose::Evaluate => round.quantiles(),
            },
        };
        turn.note(Note::Complete {
            round: id.clone(),
            model: uri,
            num_updates: complete.num_updates,
            total_samples: complete.total_samples,
        });
        self.end(id, Ending::Complete(complete), turn);
    }

    pub(crate) fn fail(
        &mut self,
        id: &RoundId,
        reason: FailReason,
        error: Option<String>,
        turn: &mut Turn,
    ) {
        let Some(round) = self.open.get(id) else { return };
        let counted = round.counted.len();
        let failed = RoundFailed {
            round_id: id.clone(),
            reason,
            num_updates: counted,
            k_of_n: round.spec.k,
            failed_at: turn.now,
            error: error.clone(),
        };
        turn.note(Note::Failed { round: id.clone(), reason, counted, error });
        self.end_series(id, turn);
        self.end(id, Ending::Failed(failed), turn);
    }

    /// Promises the outcome and remembers it in place of the round.
    fn end(&mut self, id: &RoundId, ending: Ending, turn: &mut Turn) {
        let Some(round) = self.open.remove(id) else { return };
        self.withdraw_variate(&round, turn);
        self.kept_len -= round.kept_len();
        turn.out.extend(round.blobs().into_iter().map(|blob| Output::Effect(Effect::Drop(blob))));
        if let Some(ours) = round.publication() {
            self.handing.end(&ours.uri);
        }
        let digest = round.publication().map(|ours| ours.digest);
        let forget = |table, key: &str| Entry::forget(table, key);
        turn.keep(forget(record::ROUND, id.as_str()));
        if let Some(base) = record::keep_base(&round) {
            turn.keep(forget(base.table, &base.key));
        }
        if round.publication().is_some() {
            turn.keep(forget(record::MODEL, id.as_str()));
        }
        for (proplet, counted) in &round.counted {
            let key = || record::member_key(id, proplet);
            turn.keep_with(|| forget(record::COUNTED, &key()));
            if matches!(counted.values, Some(Kept::Here(_))) {
                turn.keep_with(|| forget(record::UPDATE, &key()));
            }
        }
        for proplet in &round.absent {
            turn.keep(forget(record::ABSENT, &record::member_key(id, proplet)));
        }
        let counted = round.counted.into_iter().map(|(proplet, c)| (proplet, c.fingerprint));
        let outcome =
            Outcome { start: round.spec.start, ending, counted: counted.collect(), digest };
        turn.keep_with(|| record::keep_outcome(self.outcomes.ordinal(), &outcome));
        turn.promise(outcome.seal());
        for old in self.outcomes.push(outcome) {
            turn.keep(forget(record::OUTCOME, old.as_str()));
        }
        if !self.open.values().any(|round| round.publication().is_some()) {
            self.repetition.end();
        }
    }
}
