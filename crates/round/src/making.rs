//! From a closed round to the model that it makes: at most one version each, never the same twice.

use protocol::{
    Digest, Entry, FailReason, Letter as _, ModelUri, Output, RoundId, Tensors,
    message::{Model, ModelLatest, RoundComplete, RoundFailed},
};

use crate::{
    BaseModel, Effect, Note, Report, Rounds,
    outcome::{Ending, Outcome},
    record,
    round::{Closing, Phase, Publication},
    turn::Turn,
};

/// Models that are published again at a time, the lowest versions first: the model server takes
/// them in order.
const REPEATED_MAX: usize = 8;

impl Rounds {
    /// Closes the round if it is time to.
    pub(crate) fn settle(&mut self, id: &RoundId, turn: &mut Turn) {
        let Some(round) = self.open.get_mut(id) else { return };
        match round.closing(turn.now) {
            None => {}
            Some(Closing::Fail(reason)) => self.fail(id, reason, None, turn),
            Some(Closing::Aggregate) => {
                round.phase = Phase::Aggregating;
                round.closed_at = Some(turn.now);
                turn.keep(record::keep_round(round));
                turn.note(Note::Closed { round: id.clone(), counted: round.counted.len() });
                turn.out.extend(round.job().map(|job| Output::Effect(Effect::Aggregate(job))));
            }
        }
    }

    /// Takes what came of an aggregation; for a round that does not wait for it, it is stale.
    pub(crate) fn reported(&mut self, report: Report, turn: &mut Turn) {
        let (id, result) = match report {
            Report::Aggregated { round, tensors } => (round, Ok(tensors)),
            Report::AggregationFailed { round, reason, error } => (round, Err((reason, error))),
        };
        let Some(round) = self.open.get_mut(&id) else { return };
        if !matches!(round.phase, Phase::Aggregating) {
            return;
        }
        let result = result.and_then(|tensors| match tensors.not_finite() {
            Some(name) => {
                let error = format!("tensor {name:?} of the aggregate is not finite");
                Err((FailReason::NotFinite, error))
            }
            None => Ok(tensors),
        });
        match result {
            Ok(tensors) => {
                round.phase = Phase::Ready(tensors);
                self.assign(turn);
            }
            Err((reason, error)) => self.fail(&id, reason, Some(error), turn),
        }
    }

    /// The model server shows its newest version: one of ours may have arrived.
    pub(crate) fn shown(&mut self, latest: ModelLatest, turn: &mut Turn) {
        let (version, digest) = (latest.version, latest.sha256);
        self.versions.show(latest);
        self.compare(version, digest, turn);
        self.assign(turn);
    }

    /// A model that was listened for: a base whose shape was missing, or a version of ours.
    pub(crate) fn model(&mut self, model: BaseModel, turn: &mut Turn) {
        let BaseModel { version, schema, digest } = model;
        for round in self.open.values_mut() {
            if round.is_collecting() && round.spec.base == version && round.schema.is_none() {
                round.schema = Some(schema.clone());
                turn.keep(record::keep_round(round));
            }
        }
        self.versions.learn(version, schema);
        self.compare(version, digest, turn);
        self.assign(turn);
    }

    /// Says again everything that the model server has not shown, after a reconnect.
    pub(crate) fn publish_all(&mut self, turn: &mut Turn) {
        if self.open.values().any(|round| round.publication().is_some()) {
            self.repetition.begin(turn.now);
            self.repeat_publications(turn);
        }
    }

    pub(crate) fn repeat_publications(&mut self, turn: &mut Turn) {
        let attempts = self.repetition.overdue();
        let shown = self.versions.shown().map(|latest| latest.version);
        let rounds = self.open.values();
        let mut ours: Vec<_> = rounds
            .filter_map(|round| round.publication().map(|ours| (&round.spec.id, ours)))
            .collect();
        ours.sort_by_key(|(_, publication)| publication.version);
        for (round, publication) in ours.into_iter().take(REPEATED_MAX) {
            turn.publish(publication.seal());
            let (round, version) = (round.clone(), publication.version);
            if let Some(attempts) = attempts {
                turn.note(Note::Unconfirmed { round, version, attempts, shown });
            }
        }
    }

    /// Gives every averaged round its version, if it is known which ones there are.
    fn assign(&mut self, turn: &mut Turn) {
        let ready = self.open.values().filter(|round| matches!(round.phase, Phase::Ready(_)));
        let ready: Vec<RoundId> = ready.map(|round| round.spec.id.clone()).collect();
        for id in ready {
            if self.versions.shown().is_some() {
                self.make(&id, turn);
            }
        }
    }

    /// The version, its model and the end of the round's updates, in one step.
    fn make(&mut self, id: &RoundId, turn: &mut Turn) {
        let Some(round) = self.open.get_mut(id) else { return };
        let Phase::Ready(tensors) = &round.phase else { return };
        let Some(version) = self.versions.next() else { return };
        let model = Model { version, tensors: tensors.clone() };
        let publication = Publication::of(&model);
        let (len, len_max) = (publication.payload.len(), self.rules.model_len_max);
        if len > len_max {
            // No version is spent on what the model server would refuse for ever.
            let error = format!("the model has {len} bytes, at most {len_max} are taken");
            return self.fail(id, FailReason::Aggregation, Some(error), turn);
        }
        self.versions.take(version);
        let digest = publication.digest;
        self.versions.learn(version, model.tensors.schema());
        self.kept_len -= round.kept_len();
        for (proplet, counted) in &mut round.counted {
            if counted.values.take().is_some() {
                let key = record::member_key(id, proplet);
                turn.keep(Entry::forget(record::UPDATE, key));
            }
        }
        turn.keep(Entry::put(record::MADE, record::MADE_KEY, &version));
        let payload = publication.payload.to_vec();
        turn.keep(Entry::put_bytes(record::MODEL, id, payload));
        turn.publish(publication.seal());
        round.phase = Phase::Publishing(publication);
        turn.keep(record::keep_round(round));
        self.repetition.begin(turn.now);
        turn.note(Note::Made { round: id.clone(), version, digest });
    }

    /// Holds what is published as `version` against what a round made of it.
    fn compare(&mut self, version: protocol::ModelVersion, theirs: Digest, turn: &mut Turn) {
        let found = self.open.values_mut().find_map(|round| match &round.phase {
            Phase::Publishing(ours) if ours.version == version => Some((ours.clone(), round)),
            Phase::Collecting | Phase::Aggregating | Phase::Ready(_) | Phase::Publishing(_) => None,
        });
        let Some((ours, round)) = found else { return };
        let id = round.spec.id.clone();
        if ours.digest == theirs {
            return self.complete(&id, ours, turn);
        }
        round.phase = Phase::Ready(ours.tensors());
        turn.note(Note::VersionTaken { round: id, version, ours: ours.digest, theirs });
    }

    fn complete(&mut self, id: &RoundId, ours: Publication, turn: &mut Turn) {
        let Some(round) = self.open.get(id) else { return };
        let duration = round.closed_at.unwrap_or(turn.now).since(round.opened_at);
        let complete = RoundComplete {
            round_id: id.clone(),
            model_version: ours.version,
            model_topic: ModelUri(ours.version),
            num_updates: round.counted.len(),
            total_samples: round.total_samples(),
            completed_at: turn.now,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            participants: round.counted.keys().cloned().collect(),
            metrics: round.metrics(),
            rejected: round.rejected.clone(),
        };
        turn.note(Note::Complete {
            round: id.clone(),
            version: ours.version,
            num_updates: complete.num_updates,
            total_samples: complete.total_samples,
        });
        self.end(id, Ending::Complete(complete), turn);
    }

    fn fail(&mut self, id: &RoundId, reason: FailReason, error: Option<String>, turn: &mut Turn) {
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
        self.end(id, Ending::Failed(failed), turn);
    }

    /// Promises the outcome and remembers it in place of the round.
    fn end(&mut self, id: &RoundId, ending: Ending, turn: &mut Turn) {
        let Some(round) = self.open.remove(id) else { return };
        self.kept_len -= round.kept_len();
        let forget = |table, key: &str| Entry::forget(table, key);
        turn.keep(forget(record::ROUND, id.as_str()));
        if round.publication().is_some() {
            turn.keep(forget(record::MODEL, id.as_str()));
        }
        for (proplet, counted) in &round.counted {
            let key = record::member_key(id, proplet);
            turn.keep(forget(record::COUNTED, &key));
            if counted.values.is_some() {
                turn.keep(forget(record::UPDATE, &key));
            }
        }
        for proplet in &round.absent {
            turn.keep(forget(record::ABSENT, &record::member_key(id, proplet)));
        }
        let counted = round.counted.into_iter().map(|(proplet, c)| (proplet, c.fingerprint));
        let outcome = Outcome { start: round.spec.start, ending, counted: counted.collect() };
        turn.keep(record::keep_outcome(self.outcomes.ordinal(), &outcome));
        turn.promise(outcome.seal());
        for old in self.outcomes.push(outcome) {
            turn.keep(forget(record::OUTCOME, old.as_str()));
        }
        if !self.open.values().any(|round| round.publication().is_some()) {
            self.repetition.end();
        }
    }
}

impl Publication {
    fn of(model: &Model) -> Self {
        let payload = model.seal().payload;
        Self { version: model.version, digest: Digest::of(&payload), payload }
    }

    fn seal(&self) -> protocol::Envelope {
        let topic = protocol::Topic::ModelPublish;
        protocol::Envelope { topic, payload: self.payload.clone() }
    }

    fn tensors(&self) -> Tensors {
        let model: Model = serde_json::from_slice(&self.payload)
            .expect("a model that was written here can be read here");
        model.tensors
    }
}
