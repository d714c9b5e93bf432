//! Base models on their way in, piece by piece, and the updates whose pieces go out.

use std::time::Duration;

use bytes::Bytes;
use protocol::{
    Digest, Envelope, Letter as _, Manifest, ModelUri, RoundId, TaskId, Topic,
    message::{ModelWants, UpdateWants},
};
use transfer::{Assembly, Bitmap, Rules, Step, Way};

use super::{Agent, Waiting};
use crate::{
    BaseModel, Effect, Failure, Note, fetches::Stage, models::Known, turn::Turn, updates::Moves,
};

/// A task gives up before its model does: whoever waits for it knows better how long.
const STALL_ROOM: Duration = Duration::from_secs(60);

impl Agent {
    /// Hands a model to whoever waits for it.
    pub(super) fn model_heard(&mut self, model: &ModelUri, payload: &Bytes, turn: &mut Turn) {
        if !self.listens_to(model) {
            return;
        }
        turn.unlisten(Topic::Model { uri: model.clone() });
        self.models.put(model.clone(), Known::Whole(payload.clone()));
        for Waiting { start, purpose, .. } in self.waiting_for(model) {
            self.run(start, purpose, Some(BaseModel::Here(payload.clone())), turn);
        }
    }

    /// A model comes in pieces.
    pub(super) fn blob_heard(&mut self, model: &ModelUri, blob: Manifest, turn: &mut Turn) {
        if !self.listens_to(model) {
            return;
        }
        turn.unlisten(Topic::Model { uri: model.clone() });
        self.models.put(model.clone(), Known::Pieces(Box::new(blob.clone())));
        self.fetch(model, blob, turn);
    }

    pub(super) fn fetch(&mut self, model: &ModelUri, blob: Manifest, turn: &mut Turn) {
        turn.effect(Effect::Begin(blob.clone()));
        self.fetches.insert(model.clone(), blob);
    }

    /// The disk was looked at.
    pub(super) fn begun(&mut self, sha256: Digest, have: Result<Bitmap, String>, turn: &mut Turn) {
        let is_meant = |stage: &Stage| matches!(stage, Stage::Beginning);
        let Some(model) = &self.fetches.find(sha256, is_meant) else { return };
        let have = match have {
            Ok(have) => have,
            Err(why) => return self.fetch_failed(model, &why, turn),
        };
        let Some(fetch) = self.fetches.get_mut(model) else { return };
        let blob = fetch.blob.clone();
        let stall_max = self.config.model_wait.saturating_add(STALL_ROOM);
        let rules = Rules { stall_max, ..Rules::default() };
        let mut assembly = Assembly::new(blob.clone(), Way::Retained, rules);
        assembly.restore(&have);
        let steps = if self.link.up { assembly.connected(turn.now) } else { vec![] };
        fetch.stage = Stage::Coming(Box::new(assembly));
        if !have.is_full() {
            turn.note(Note::Fetching { model: model.clone(), blob, have: have.count() });
        }
        self.progressed(model, turn);
        self.follow(model, steps, turn);
    }

    /// A piece of a model. What is refused is counted there; a flood of it gets no answer.
    pub(super) fn chunk_heard(
        &mut self,
        model: &ModelUri,
        index: u32,
        bytes: Bytes,
        turn: &mut Turn,
    ) {
        let Some(assembly) = self.fetches.coming(model) else { return };
        if let Ok(steps) = assembly.chunk(index, bytes, turn.now) {
            self.follow(model, steps, turn);
        }
    }

    pub(super) fn stored(
        &mut self,
        sha256: Digest,
        index: u32,
        result: Result<(), String>,
        turn: &mut Turn,
    ) {
        for model in &self.fetches.models() {
            let Some(assembly) = self.fetches.coming(model) else { continue };
            if assembly.manifest().sha256() != sha256 {
                continue;
            }
            let before = assembly.progress().have;
            let steps = match &result {
                Ok(()) => assembly.stored(index, turn.now),
                // It is asked for again; a disk that stays full ends the wait of the tasks.
                Err(_) => {
                    assembly.store_failed(index, turn.now);
                    vec![]
                }
            };
            if assembly.progress().have > before {
                self.progressed(model, turn);
            }
            self.follow(model, steps, turn);
        }
    }

    /// A model is on the disk as a whole, and pinned once; or it is not what was promised.
    pub(super) fn fetched(&mut self, sha256: Digest, result: Result<(), String>, turn: &mut Turn) {
        let is_meant = |stage: &Stage| matches!(stage, Stage::Finishing { .. });
        let model = self.fetches.find(sha256, is_meant);
        match (result, model) {
            (Ok(()), Some(model)) => self.run_on(&model, sha256, turn),
            (Ok(()), None) => turn.effect(Effect::Release(sha256)),
            (Err(why), Some(model)) => self.fetch_failed(&model, &why, turn),
            (Err(_), None) => {}
        }
    }

    /// Runs the tasks that waited for this model; each has a pin of its own.
    fn run_on(&mut self, model: &ModelUri, sha256: Digest, turn: &mut Turn) {
        if let Some(fetch) = self.fetches.remove(model)
            && let Stage::Finishing { refused } = fetch.stage
        {
            turn.note(Note::Fetched { model: model.clone(), blob: fetch.blob, refused });
        }
        let waiting = self.waiting_for(model);
        if !waiting.is_empty() {
            turn.effect(Effect::Hold(vec![sha256; waiting.len()]));
        }
        for Waiting { start, purpose, .. } in waiting {
            self.run(start, purpose, Some(BaseModel::Stored(sha256)), turn);
        }
        turn.effect(Effect::Release(sha256));
    }

    /// Asks again for what is overdue.
    pub(super) fn attend_fetches(&mut self, turn: &mut Turn) {
        for model in &self.fetches.models() {
            let Some(assembly) = self.fetches.coming(model) else { continue };
            if assembly.deadline().is_some_and(|deadline| turn.now >= deadline) {
                let steps = assembly.tick(turn.now);
                self.follow(model, steps, turn);
            }
        }
    }

    /// Pieces that were asked for before the connection was lost are asked for again.
    pub(super) fn go_on_fetching(&mut self, turn: &mut Turn) {
        for model in &self.fetches.models() {
            let Some(assembly) = self.fetches.coming(model) else { continue };
            let steps = assembly.connected(turn.now);
            self.follow(model, steps, turn);
        }
    }

    /// Nobody waits for this model any more, if that is so.
    pub(super) fn let_fetch_go(&mut self, model: &ModelUri, turn: &mut Turn) {
        if self.awaits(model) {
            return;
        }
        let Some(mut fetch) = self.fetches.remove(model) else {
            return turn.unlisten(Topic::Model { uri: model.clone() });
        };
        if let Stage::Coming(assembly) = &mut fetch.stage {
            unsubscribe(model, assembly.abandon(), turn);
        }
        turn.effect(Effect::Abandon(fetch.blob));
    }

    /// Somebody lacks pieces of an update.
    pub(super) fn wanted(&mut self, wanted: &UpdateWants, turn: &mut Turn) {
        if wanted.proplet_id != self.proplet || self.closing {
            return;
        }
        let round = &wanted.round_id;
        let moves = self.updates.wanted(round, &wanted.wants, turn.now);
        if moves.first {
            turn.note(Note::Sending { round: round.clone() });
        }
        read(round, moves, turn);
    }

    /// A piece of an update was read: it goes to the broker.
    pub(super) fn chunk_read(
        &mut self,
        (round, sha256): (RoundId, Digest),
        index: u32,
        result: Result<Bytes, String>,
        turn: &mut Turn,
    ) {
        match result {
            Ok(payload) => {
                let moves = self.updates.sent((&round, sha256), index, turn.now);
                // It may have got its verdict meanwhile.
                let Some(moves) = moves else { return };
                let proplet = self.proplet.clone();
                let topic = Topic::UpdateChunk { round: round.clone(), proplet, index };
                turn.publish(Envelope { topic, payload });
                read(&round, moves, turn);
            }
            Err(why) => {
                let moves = self.updates.unreadable(&round, sha256, index);
                if moves.first {
                    turn.note(Note::Unreadable { round: round.clone(), index, why });
                }
                read(&round, moves, turn);
            }
        }
    }

    /// Does what a transfer asks for.
    fn follow(&mut self, model: &ModelUri, steps: Vec<Step>, turn: &mut Turn) {
        for step in steps {
            let Some(fetch) = self.fetches.get_mut(model) else { return };
            let blob = fetch.blob.clone();
            match step {
                Step::Subscribe(index) => {
                    turn.listen(Topic::ModelChunk { uri: model.clone(), index })
                }
                Step::Unsubscribe(index) => {
                    turn.unlisten(Topic::ModelChunk { uri: model.clone(), index })
                }
                Step::Ask(_) => turn.publish(wants(model).seal()),
                Step::Store { index, bytes } => turn.effect(Effect::Store { blob, index, bytes }),
                Step::Done => {
                    let refused = match &fetch.stage {
                        Stage::Coming(assembly) => assembly.counts().refused.values().sum(),
                        Stage::Beginning | Stage::Finishing { .. } => 0,
                    };
                    fetch.stage = Stage::Finishing { refused };
                    turn.effect(Effect::Finish(blob));
                }
                Step::Failed { reason } => self.fetch_failed(model, &reason.to_string(), turn),
            }
        }
    }

    fn fetch_failed(&mut self, model: &ModelUri, why: &str, turn: &mut Turn) {
        self.models.forget(model);
        if let Some(mut fetch) = self.fetches.remove(model) {
            if let Stage::Coming(assembly) = &mut fetch.stage {
                unsubscribe(model, assembly.abandon(), turn);
            }
            turn.effect(Effect::Abandon(fetch.blob));
        }
        for Waiting { start, .. } in self.waiting_for(model) {
            let message = format!("base model {model} cannot be had: {why}");
            let failure = Failure::new("no_model", message);
            self.conclude(&start.id, start.attempt, failure.into(), turn);
        }
    }

    /// Who waits for this model waits from now on.
    fn progressed(&mut self, model: &ModelUri, turn: &Turn) {
        let until = turn.now + self.config.model_wait;
        let waiting = self.waiting.values_mut().filter(|waiting| waiting.model == *model);
        waiting.for_each(|waiting| waiting.until = until);
    }

    /// Takes those out that wait for this model.
    fn waiting_for(&mut self, model: &ModelUri) -> Vec<Waiting> {
        let waiting = self.waiting.iter().filter(|(_, waiting)| waiting.model == *model);
        let tasks: Vec<TaskId> = waiting.map(|(task, _)| task.clone()).collect();
        tasks.iter().filter_map(|task| self.waiting.remove(task)).collect()
    }

    /// Whether it was not heard yet what this model is.
    fn listens_to(&self, model: &ModelUri) -> bool {
        self.awaits(model) && !self.fetches.contains(model)
    }
}

fn read(round: &RoundId, moves: Moves, turn: &mut Turn) {
    for (blob, index) in moves.reads {
        turn.effect(Effect::ReadChunk { round: round.clone(), blob, index });
    }
}

fn wants(model: &ModelUri) -> ModelWants {
    ModelWants { line: model.line.clone(), version: model.version }
}

fn unsubscribe(model: &ModelUri, steps: Vec<Step>, turn: &mut Turn) {
    for step in steps {
        if let Step::Unsubscribe(index) = step {
            turn.unlisten(Topic::ModelChunk { uri: model.clone(), index });
        }
    }
}
