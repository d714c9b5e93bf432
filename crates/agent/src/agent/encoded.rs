//! Updates of rounds that ask for an encoding: written by the shell, then said or offered as any
//! other.

use encoding::Encoding;
use protocol::{Digest, Entry, Letter as _, TaskId, message::Update};
use serde_json::{Value, json};

use super::{Agent, Run, tasks::End};
use crate::{
    BaseModel, Effect, Encode, Encoded, EncodedPayload, Failure, Residual, ResidualValues,
    purpose::Purpose, record, turn::Turn,
};

impl Agent {
    /// Asks for an update to be encoded; its tensors are in `blob` if they are not in it.
    pub(super) fn encode(
        &mut self,
        (task, mut run): (TaskId, Run),
        encoding: &Encoding,
        (update, blob): (Update, Option<Digest>),
        turn: &mut Turn,
    ) {
        let residual = self.residuals.of(&series(&update, encoding));
        let said = Update { update: protocol::Tensors::default(), ..update.clone() };
        run.packing = Some(Box::new(said));
        let encode = Encode {
            task: task.clone(),
            attempt: run.attempt,
            encoding: encoding.clone(),
            update,
            blob,
            base: run.kit.model.clone(),
            residual,
            message_bytes_max: self.config.message_bytes_max,
        };
        turn.effect(Effect::Encode(Box::new(encode)));
        self.running.insert(task, run);
    }

    /// An update was encoded.
    pub(super) fn encoded(
        &mut self,
        task: &TaskId,
        attempt: u32,
        result: Result<Encoded, Failure>,
        turn: &mut Turn,
    ) {
        let blobs = result.as_ref().map(blobs).unwrap_or_default();
        let Some(mut run) = self.end_run(task, attempt, blobs.clone(), turn) else { return };
        let asked = match &run.purpose {
            Purpose::Federated(asked) => asked.encoding.clone(),
            Purpose::Plain { .. } => None,
        };
        let (Some(update), Some(asked)) = (run.packing.take(), asked) else {
            // It still runs: this is nobody's report.
            drop_all(blobs, turn);
            self.running.insert(task.clone(), run);
            return;
        };
        let base = run.kit.model.as_ref();
        let end = result.and_then(|encoded| self.hand_in((*update, &asked), base, encoded, turn));
        self.leave(task, run, end.unwrap_or_else(End::Failed), turn);
    }

    /// Keeps what is to be said or offered, and what it left out.
    fn hand_in(
        &mut self,
        (update, asked): (Update, &Encoding),
        base: Option<&BaseModel>,
        encoded: Encoded,
        turn: &mut Turn,
    ) -> Result<End, Failure> {
        let (round, series) = (update.round_id.clone(), series(&update, asked));
        let blobs = blobs(&encoded);
        if let Some(end) = self.duplicate(&update) {
            drop_all(blobs, turn);
            return Ok(end);
        }
        let Encoded { payload, residual } = encoded;
        let payload = match payload {
            EncodedPayload::Here(payload) => EncodedPayload::Here(self.based(payload, base)),
            EncodedPayload::Stored(blob) => EncodedPayload::Stored(blob),
        };
        let len = match &payload {
            EncodedPayload::Here(payload) => payload.len(),
            EncodedPayload::Stored(_) => 0,
        };
        let left_out = residual.as_ref().map_or(0, Residual::len) + self.residuals.waiting_len();
        if let Err(full) = self.has_room(len + left_out) {
            drop_all(blobs, turn);
            return Err(full);
        }
        let mut end = match payload {
            EncodedPayload::Here(payload) => {
                let result = json!({
                    "update": "published",
                    "round_id": round,
                    "topic": update.topic().to_string(),
                    "num_samples": update.num_samples,
                    "bytes": payload.len(),
                });
                turn.keep(|| Entry::put_bytes(record::UPDATES, &round, payload.to_vec()));
                self.updates.put(round.clone(), payload);
                End::Update { round: round.clone(), result }
            }
            EncodedPayload::Stored(blob) => {
                let left = residual.as_ref().and_then(stored);
                self.offer(update, (blob, base), turn)
                    .inspect_err(|_| drop_all(left.into_iter().collect(), turn))?
            }
        };
        if let End::Update { result: Value::Object(said), .. } = &mut end {
            said.insert("encoding".to_owned(), asked.to_string().into());
        }
        if let Some(residual) = residual {
            for entry in self.residuals.wait(round, series, residual) {
                turn.keep(|| entry);
            }
        }
        Ok(end)
    }
}

/// What is left out of one update goes to the next of its kind.
fn series(update: &Update, encoding: &Encoding) -> String {
    format!("{}/{encoding}", update.base_model_uri.line)
}

fn blobs(encoded: &Encoded) -> Vec<Digest> {
    let payload = match &encoded.payload {
        EncodedPayload::Here(_) => None,
        EncodedPayload::Stored(blob) => Some(blob.sha256()),
    };
    payload.into_iter().chain(encoded.residual.as_ref().and_then(stored)).collect()
}

const fn stored(residual: &Residual) -> Option<Digest> {
    match &residual.values {
        ResidualValues::Here(_) => None,
        ResidualValues::Stored(blob) => Some(*blob),
    }
}

fn drop_all(blobs: Vec<Digest>, turn: &mut Turn) {
    blobs.into_iter().for_each(|blob| turn.effect(Effect::Drop(blob)));
}
