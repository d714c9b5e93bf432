//! From a closed round to the model that it makes: at most one version each, never the same twice.

use bytes::Bytes;
use protocol::{
    Digest, Entry, FailReason, Form, Letter as _, Manifest, ModelUri, Output, RoundId,
    message::{Model, ModelBlob, ModelLatest, Purpose, is_blob_form},
    tensor::safetensors::Header,
};

use crate::{
    Base, BaseModel, Beside, Effect, Kept, Made, Note, Report, Rounds,
    leaving::Leaving,
    memory::Owner,
    record,
    round::{Closing, Phase, Publication, Round},
    rounds::of_head,
    turn::Turn,
};

/// Models that are published again at a time, the lowest versions first: the model server takes
/// them in order.
const REPEATED_MAX: usize = 8;

impl Rounds {
    /// Closes the round if it is time to.
    pub(crate) fn settle(&mut self, id: &RoundId, turn: &mut Turn) {
        let alone = self.is_alone(id);
        let Some(round) = self.open.get_mut(id) else { return };
        match round.closing(turn.now, alone) {
            None => {}
            Some(Closing::Fail(reason)) => self.fail(id, reason, None, turn),
            Some(Closing::Aggregate) => {
                round.closed_at = Some(turn.now);
                turn.note(Note::Closed { round: id.clone(), counted: round.counted.len() });
                match round.spec.purpose {
                    Purpose::Train => {
                        round.phase = Phase::Aggregating;
                        turn.keep(record::keep_round(round));
                        let job = round.job(&self.memory, &self.lingering);
                        turn.out.extend(job.map(|job| Output::Effect(Effect::Aggregate(job))));
                    }
                    // What is to be known of it is known: it ends in the step that closes it.
                    Purpose::Evaluate => {
                        let base = round.spec.base.clone();
                        self.complete(id, base, turn);
                    }
                }
            }
        }
    }

    /// Takes what came of an aggregation; for a round that does not wait for it, it is stale.
    pub(crate) fn reported(&mut self, report: Report, turn: &mut Turn) {
        match report {
            Report::Aggregated { round, model, beside } => {
                self.averaged(&round, Ok((model, beside)), turn);
            }
            Report::AggregationFailed { round, reason, error } => {
                self.averaged(&round, Err((reason, error)), turn);
            }
            Report::Asked { ticket, ask } => self.asked(ticket, ask, turn),
            Report::Begun { sha256, have } => {
                if self.fetching.has(sha256) {
                    self.model_begun(sha256, have, turn);
                } else {
                    self.begun(sha256, have, turn);
                }
            }
            Report::Stored { sha256, index, result } => {
                self.model_stored(sha256, index, &result, turn);
                self.stored(sha256, index, result, turn);
            }
            Report::Received { sha256, result } => {
                if self.fetching.has(sha256) {
                    self.model_received(sha256, result, turn);
                } else {
                    self.received(sha256, result, turn);
                }
            }
            Report::Decoded { sha256, result } => self.decoded(sha256, result, turn),
            Report::ChunkRead { sha256, index, result } => {
                self.piece_read(sha256, index, result, turn);
            }
        }
    }

    fn averaged(
        &mut self,
        id: &RoundId,
        result: Result<(Made, Beside), (FailReason, String)>,
        turn: &mut Turn,
    ) {
        let Some(round) = self.open.get_mut(id) else { return };
        if !matches!(round.phase, Phase::Aggregating) {
            return;
        }
        let result = result.and_then(|(model, beside)| match model.not_finite() {
            Some(name) => {
                let error = format!("tensor {name:?} of the aggregate is not finite");
                Err((FailReason::NotFinite, error))
            }
            None => round.enough(&beside).map(|()| (model, beside)),
        });
        match result {
            Ok((model, beside)) => {
                round.phase = Phase::Ready(model, Leaving::New(beside));
                self.assign(turn);
            }
            Err((reason, error)) => self.fail(id, reason, Some(error), turn),
        }
    }

    /// The model server shows its newest version: one of ours may have arrived.
    pub(crate) fn shown(&mut self, latest: ModelLatest, turn: &mut Turn) {
        let (uri, digest) = (latest.topic.clone(), latest.sha256);
        self.versions.show(latest);
        self.compare(&uri, digest, turn);
        self.assign(turn);
    }

    /// A model that was listened for: a base whose shape was missing, or a version of ours.
    pub(crate) fn model(&mut self, model: BaseModel, turn: &mut Turn) {
        let BaseModel { uri, base, digest } = model;
        let mut unfit = vec![];
        for round in self.open.values_mut() {
            if round.is_collecting() && round.spec.base == uri && round.base.is_none() {
                if let Err(why) = round.spec.check(&base, self.rules.variate_len_max) {
                    unfit.push((round.spec.id.clone(), why));
                    continue;
                }
                round.base = round.spec.base_from(&base);
                turn.keep(record::keep_round(round));
                turn.out.extend(record::keep_base(round).map(Output::Keep));
            }
        }
        for (round, why) in unfit {
            self.fail(&round, FailReason::BadStart, Some(why), turn);
        }
        self.versions.learn(&uri, base);
        self.compare(&uri, digest, turn);
        self.assign(turn);
        self.lingering.ask_again();
    }

    /// A model in pieces: the first piece says what it is made of.
    pub(crate) fn model_blob(&mut self, uri: ModelUri, blob: Manifest, turn: &mut Turn) {
        self.compare(&uri, blob.sha256(), turn);
        self.assign(turn);
        let is_missing =
            |round: &Round| round.is_collecting() && round.spec.base == uri && round.base.is_none();
        if self.open.values().any(is_missing) && self.heads.insert(uri.clone(), blob).is_none() {
            turn.out.push(Output::Listen(of_head(&uri)));
        }
    }

    /// The first piece of such a model.
    pub(crate) fn model_head(&mut self, uri: &ModelUri, bytes: &Bytes, turn: &mut Turn) {
        let Some(blob) = self.heads.get(uri) else { return };
        if blob.check(0, bytes).is_err() {
            return;
        }
        let blob = blob.clone();
        let (digest, header) = (blob.sha256(), Header::read(bytes, blob.bytes()));
        self.heads.remove(uri);
        turn.out.push(Output::Unlisten(of_head(uri)));
        match header {
            Ok(header) => {
                let (schema, form) = (header.schema(), Form::Safetensors);
                let base = Base { schema, form, values: None, sha256: Some(digest) };
                let schema = base.schema.clone();
                self.model(BaseModel { uri: uri.clone(), base, digest }, turn);
                self.fetch_values(uri, (blob, schema), turn);
            }
            Err(why) => turn.note(Note::BadBase { model: uri.clone(), what: why.to_string() }),
        }
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
        let rounds = self.open.values();
        let mut ours: Vec<_> = rounds
            .filter_map(|round| round.publication().map(|ours| (&round.spec.id, ours)))
            .collect();
        ours.sort_by_key(|(_, publication)| &publication.uri);
        for (round, publication) in ours.into_iter().take(REPEATED_MAX) {
            turn.publish(publication.seal());
            let (round, model) = (round.clone(), publication.uri.clone());
            if let Some(attempts) = attempts {
                let shown = self.versions.shown(&model.line).map(|latest| latest.version);
                turn.note(Note::Unconfirmed { round, model, attempts, shown });
            }
        }
    }

    /// Gives every averaged round its version, if it is known which ones there are.
    fn assign(&mut self, turn: &mut Turn) {
        let ready = self.open.values().filter(|round| {
            let is_known = self.versions.shown(&round.spec.base.line).is_some();
            matches!(round.phase, Phase::Ready(..)) && is_known
        });
        let ready: Vec<RoundId> = ready.map(|round| round.spec.id.clone()).collect();
        for id in ready {
            self.make(&id, turn);
        }
    }

    /// The version, its model and the end of the round's updates, in one step.
    fn make(&mut self, id: &RoundId, turn: &mut Turn) {
        let Some(round) = self.open.get_mut(id) else { return };
        let (Phase::Ready(made, leaving), Some(base)) = (&round.phase, &round.base) else { return };
        let leaving = leaving.clone();
        let Some(uri) = self.versions.next(&round.spec.base.line) else { return };
        let publication = Publication::of(made, base, uri.clone());
        let len_max = match &publication.blob {
            None => self.rules.model_len_max as u64,
            Some(_) => self.rules.blob_len_max,
        };
        let len = publication.len();
        if len > len_max {
            // No version is spent on what the model server would refuse for ever.
            let error = format!("the model has {len} bytes, at most {len_max} are taken");
            leaving.drop_blob(turn);
            return self.fail(id, FailReason::Aggregation, Some(error), turn);
        }
        self.versions.take(&uri);
        let digest = publication.digest;
        self.versions.learn(&uri, base.followed_by(made, digest));
        if let Some(blob) = &publication.blob {
            self.handing.begin(uri.clone(), blob.clone());
        }
        self.kept_len -= round.kept_len();
        for (proplet, counted) in &mut round.counted {
            match counted.values.take() {
                Some(Kept::Here(_)) => {
                    turn.keep_with(|| {
                        Entry::forget(record::UPDATE, record::member_key(id, proplet))
                    });
                }
                Some(Kept::Stored(blob)) => turn.effect(Effect::Drop(blob.sha256)),
                None => {}
            }
        }
        let owner = Owner {
            strategy: round.spec.strategy.clone(),
            workload: round.spec.workload,
            series: round.series(&self.memory),
        };
        leaving.tell(round, turn);
        turn.keep(record::keep_made(&uri));
        let payload = publication.payload.to_vec();
        turn.keep(Entry::put_bytes(record::MODEL, id, payload));
        // Said first: whoever looks at the message on its way knows what it is.
        turn.note(Note::Made { round: id.clone(), model: uri.clone(), digest });
        turn.publish(publication.seal());
        round.phase = Phase::Publishing(publication);
        turn.keep(record::keep_round(round));
        self.repetition.begin(turn.now);
        self.remember(&uri, leaving, owner, turn);
    }

    /// Holds what is published at `uri` against what a round made of it.
    fn compare(&mut self, uri: &ModelUri, theirs: Digest, turn: &mut Turn) {
        let found = self.open.values_mut().find_map(|round| match &round.phase {
            Phase::Publishing(ours) if ours.uri == *uri => Some((ours.clone(), round)),
            Phase::Collecting
            | Phase::Aggregating
            | Phase::Ready(..)
            | Phase::Publishing(_)
            | Phase::Lingering => None,
        });
        let Some((ours, round)) = found else { return };
        let id = round.spec.id.clone();
        if ours.digest == theirs {
            return self.complete(&id, ours.uri, turn);
        }
        let Some(made) = ours.made(round.base.as_ref()) else { return };
        self.handing.end(uri);
        round.phase = Phase::Ready(made, Leaving::Under(uri.clone()));
        turn.note(Note::VersionTaken { round: id, model: uri.clone(), ours: ours.digest, theirs });
    }
}

impl Publication {
    fn of(made: &Made, base: &Base, uri: ModelUri) -> Self {
        let version = uri.version;
        match made {
            Made::Here(tensors) => {
                let payload = base.model(version, tensors.clone()).seal().payload;
                Self { uri, digest: Digest::of(&payload), payload, blob: None }
            }
            Made::Stored { blob, .. } => {
                let payload = ModelBlob { version, blob: blob.clone() }.seal().payload;
                Self { uri, digest: blob.sha256(), payload, blob: Some(blob.clone()) }
            }
        }
    }

    /// Takes back what was kept.
    pub(crate) fn read(uri: ModelUri, payload: Bytes) -> Self {
        let blob = is_blob_form(&payload).then(|| serde_json::from_slice(&payload));
        let blob = blob.and_then(Result::ok).map(|ModelBlob { blob, .. }| blob);
        let digest = blob.as_ref().map_or_else(|| Digest::of(&payload), Manifest::sha256);
        Self { uri, digest, payload, blob }
    }

    fn seal(&self) -> protocol::Envelope {
        let topic = protocol::Topic::ModelPublish { line: self.uri.line.clone() };
        protocol::Envelope { topic, payload: self.payload.clone() }
    }

    /// The length of the model, in bytes.
    fn len(&self) -> u64 {
        self.blob.as_ref().map_or(self.payload.len() as u64, Manifest::bytes)
    }

    /// The model without its version.
    fn made(&self, base: Option<&Base>) -> Option<Made> {
        match &self.blob {
            None => Model::read(&self.payload).ok().map(|model| Made::Here(model.tensors)),
            Some(blob) => {
                let (blob, schema) = (blob.clone(), base?.schema.clone());
                Some(Made::Stored { blob, schema })
            }
        }
    }
}

impl Made {
    /// What is in a file was checked when it was written.
    fn not_finite(&self) -> Option<&str> {
        match self {
            Self::Here(tensors) => tensors.not_finite(),
            Self::Stored { .. } => None,
        }
    }
}
