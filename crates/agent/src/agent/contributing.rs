//! The end of a run: what it made becomes a result, or an update that is said, or offered, until
//! its verdict is heard.

use bytes::Bytes;
use encoding::Encoding;
use protocol::{
    Digest, Entry, Letter as _, Manifest, TaskId,
    message::{TaskMetrics, Update, UpdateOffer, with_base_digest},
};
use serde_json::json;

use super::{Agent, Kit, Run, tasks::End};
use crate::{
    BaseDigest, BaseModel, Effect, Failure, Finished, Note, Outcome, RunMetrics,
    purpose::{Contribution, Purpose},
    record,
    turn::Turn,
};

/// What came of an output.
enum Made {
    End(End),
    /// An update that is too long for one message.
    Long(Box<Update>),
    /// An update that its round wants encoded, and the blob of its tensors if they are in one.
    Plain(Box<Update>, Encoding, Option<Digest>),
}

impl Agent {
    /// The program has ended.
    pub(super) fn finished(&mut self, finished: Finished, turn: &mut Turn) {
        let Finished { task, attempt, outcome, metrics } = finished;
        let blob = match &outcome {
            Outcome::Packed(packed) => Some(packed.blob.sha256()),
            Outcome::Ok(_) | Outcome::Failed(_) => None,
        };
        let Some(mut run) = self.end_run(&task, attempt, blob, turn) else { return };
        turn.publish(self.task_metrics(&task, attempt, metrics).seal());
        let outcome = self.take_state(&mut run, outcome, turn);
        let made = match (outcome, &run.purpose) {
            (Outcome::Failed(failure), _) => Err(failure),
            (Outcome::Ok(output), Purpose::Plain { .. }) => output
                .result(self.config.result_bytes_max)
                .map(|result| Made::End(End::Result(result))),
            (Outcome::Ok(output), Purpose::Federated(asked)) => {
                let update = output.update(asked, &self.proplet);
                update.and_then(|update| match &asked.encoding {
                    Some(encoding) => Ok(self.encodable(update, encoding, None, turn)),
                    None => self.contribute((update, asked), run.kit.model.as_ref(), turn),
                })
            }
            (Outcome::Packed(packed), Purpose::Plain { .. }) => {
                turn.effect(Effect::Drop(packed.blob.sha256()));
                let message = "a task that is not federated has left an update";
                Err(Failure::new("host", message))
            }
            (Outcome::Packed(packed), Purpose::Federated(asked)) => {
                let update = packed.update(asked, &self.proplet);
                let update =
                    update.inspect_err(|_| turn.effect(Effect::Drop(packed.blob.sha256())));
                update.and_then(|update| match &asked.encoding {
                    Some(encoding) => {
                        let blob = Some(packed.blob.sha256());
                        Ok(self.encodable(update, encoding, blob, turn))
                    }
                    None => {
                        let base = run.kit.model.as_ref();
                        self.offer(update, (packed.blob, base), turn).map(Made::End)
                    }
                })
            }
        };
        let end = match made {
            Ok(Made::Long(update)) => {
                let (base, packing) = (run.kit.model.clone(), Some(update.clone()));
                turn.effect(Effect::Pack { task: task.clone(), attempt, update, base });
                run.packing = packing;
                self.running.insert(task, run);
                return;
            }
            Ok(Made::Plain(update, encoding, blob)) => {
                return self.encode((task, run), &encoding, (*update, blob), turn);
            }
            Ok(Made::End(end)) => end,
            Err(failure) => failure.into(),
        };
        self.leave(&task, run, end, turn);
    }

    /// An update to be encoded, unless an earlier one stands.
    fn encodable(
        &self,
        update: Update,
        encoding: &Encoding,
        blob: Option<Digest>,
        turn: &mut Turn,
    ) -> Made {
        match self.duplicate(&update) {
            Some(end) => {
                blob.into_iter().for_each(|blob| turn.effect(Effect::Drop(blob)));
                Made::End(end)
            }
            None => Made::Plain(Box::new(update), encoding.clone(), blob),
        }
    }

    /// An update has become a blob.
    pub(super) fn packed(
        &mut self,
        task: &TaskId,
        attempt: u32,
        result: Result<Manifest, Failure>,
        turn: &mut Turn,
    ) {
        let blob = result.as_ref().ok().map(Manifest::sha256);
        let Some(mut run) = self.end_run(task, attempt, blob, turn) else { return };
        let end = match (run.packing.take(), result) {
            (Some(update), Ok(blob)) => self.offer(*update, (blob, run.kit.model.as_ref()), turn),
            (None, Ok(blob)) => {
                // It still runs: this is nobody's report.
                turn.effect(Effect::Drop(blob.sha256()));
                self.running.insert(task.clone(), run);
                return;
            }
            (_, Err(failure)) => Err(failure),
        };
        self.leave(task, run, end.unwrap_or_else(End::Failed), turn);
    }

    /// Takes a run out that has come to its end; not one that was cancelled, whose `blobs` nobody
    /// needs.
    pub(super) fn end_run(
        &mut self,
        task: &TaskId,
        attempt: u32,
        blobs: impl IntoIterator<Item = Digest>,
        turn: &mut Turn,
    ) -> Option<Run> {
        if self.running.get(task).is_some_and(|run| run.attempt == attempt) {
            return self.running.remove(task);
        }
        blobs.into_iter().for_each(|blob| turn.effect(Effect::Drop(blob)));
        let key = (task.clone(), attempt);
        let cut_off = self.cut_off.as_mut();
        if let Some(kit) = cut_off.and_then(|cut_off| cut_off.ending.remove(&key)) {
            release(&kit, turn);
            if self.link.closing && self.ending_len() == 0 {
                turn.effect(Effect::Stopped);
            }
        }
        None
    }

    /// A run leaves its slot.
    pub(super) fn leave(&mut self, task: &TaskId, run: Run, end: End, turn: &mut Turn) {
        release(&run.kit, turn);
        turn.keep(|| Entry::forget(record::RUNNING, task));
        if let (End::Update { round, .. }, Some(own)) = (&end, run.own) {
            self.await_verdict(round, *own, turn);
        }
        self.conclude(task, run.attempt, end, turn);
    }

    /// Keeps an update for publication if it fits one message; the task's result says where it
    /// went.
    fn contribute(
        &mut self,
        (update, asked): (Update, &Contribution),
        base: Option<&BaseModel>,
        turn: &mut Turn,
    ) -> Result<Made, Failure> {
        let round = asked.round.clone();
        if let Some(end) = self.duplicate(&update) {
            return Ok(Made::End(end));
        }
        let payload = self.based(update.seal().payload, base);
        if payload.len() > self.config.message_bytes_max {
            return Ok(Made::Long(Box::new(update)));
        }
        self.has_room(payload.len())?;
        let result = json!({
            "update": "published",
            "round_id": round,
            "topic": update.topic().to_string(),
            "num_samples": update.num_samples,
            "bytes": payload.len(),
        });
        turn.keep(|| Entry::put_bytes(record::UPDATES, &round, payload.to_vec()));
        self.updates.put(round.clone(), payload);
        Ok(Made::End(End::Update { round, result }))
    }

    /// Keeps the offer of an update whose tensors are the pinned `blob`.
    pub(super) fn offer(
        &mut self,
        update: Update,
        (blob, base): (Manifest, Option<&BaseModel>),
        turn: &mut Turn,
    ) -> Result<End, Failure> {
        if let Some(end) = self.duplicate(&update) {
            turn.effect(Effect::Drop(blob.sha256()));
            return Ok(end);
        }
        let (round, manifest) = (update.round_id.clone(), blob.clone());
        let offer = UpdateOffer {
            round_id: update.round_id,
            proplet_id: update.proplet_id,
            base_model_uri: update.base_model_uri,
            num_samples: update.num_samples,
            metrics: update.metrics,
            blob,
        };
        let payload = self.based(offer.seal().payload, base);
        self.has_room(payload.len())
            .inspect_err(|_| turn.effect(Effect::Drop(manifest.sha256())))?;
        let result = json!({
            "update": "published",
            "round_id": round,
            "topic": offer.topic().to_string(),
            "num_samples": offer.num_samples,
            "bytes": manifest.bytes(),
            "chunks": manifest.count(),
        });
        turn.keep(|| Entry::put_bytes(record::UPDATES, &round, payload.to_vec()));
        self.updates.put(round.clone(), payload);
        turn.note(Note::Offered { round: round.clone(), blob: manifest });
        Ok(End::Update { round, result })
    }

    /// An update, or the offer of one, that says which bytes its base model is, if it is to.
    pub(super) fn based(&self, payload: Bytes, base: Option<&BaseModel>) -> Bytes {
        let digest = match (self.config.base_digest, base) {
            (BaseDigest::Unsaid, _) | (BaseDigest::Said, None) => return payload,
            (BaseDigest::Said, Some(BaseModel::Here(model))) => Digest::of(model),
            (BaseDigest::Said, Some(BaseModel::Stored(sha256))) => *sha256,
        };
        with_base_digest(&payload, digest).unwrap_or(payload)
    }

    /// An earlier run's update may have been counted already: it is the one that stands.
    pub(super) fn duplicate(&self, update: &Update) -> Option<End> {
        let round = update.round_id.clone();
        let result = json!({ "update": "duplicate", "round_id": round });
        self.updates.contains(&round).then_some(End::Update { round, result })
    }

    pub(super) fn has_room(&self, len: usize) -> Result<(), Failure> {
        let states = self.states.waiting_len();
        let full = self.updates.full(len + states, self.config.updates_bytes_max);
        let Some((count, bytes)) = full else { return Ok(()) };
        let message = format!("{count} updates of {bytes} bytes still wait for a verdict");
        Err(Failure::new("updates_full", message))
    }

    fn task_metrics(&self, task: &TaskId, attempt: u32, metrics: RunMetrics) -> TaskMetrics {
        let RunMetrics { wall_ms, cpu_ms, memory_bytes, fuel, module, compile_ms, start_us } =
            metrics;
        TaskMetrics {
            task_id: task.clone(),
            proplet_id: self.proplet.clone(),
            attempt,
            wall_ms,
            cpu_ms,
            memory_bytes,
            fuel,
            module: module.to_owned(),
            compile_ms,
            start_us,
        }
    }
}

/// Whoever ran on blobs does not need them any longer.
pub(super) fn release(kit: &Kit, turn: &mut Turn) {
    match kit.model {
        Some(BaseModel::Stored(sha256)) => turn.effect(Effect::Release(sha256)),
        Some(BaseModel::Here(_)) | None => {}
    }
    if let Some(sha256) = &kit.module {
        turn.effect(Effect::Release(**sha256));
    }
}
