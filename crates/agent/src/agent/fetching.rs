//! Base models and modules on their way in, piece by piece, and the updates whose pieces go out.

use std::time::Duration;

use bytes::Bytes;
use protocol::{
    Digest, Envelope, Letter as _, Manifest, ModelUri, RoundId, TaskId, Topic,
    message::{ModelWants, ModuleWants, UpdateWants},
};
use transfer::{Assembly, Bitmap, Rules, Step, Way};

use super::{Agent, Kit, tasks::missing};
use crate::{
    BaseModel, Effect, Need, Note, fetches::Stage, models::Known, turn::Turn, updates::Moves,
};

/// A task gives up before its model does: whoever waits for it knows better how long.
const STALL_ROOM: Duration = Duration::from_secs(60);
/// The manager shows a module's pieces when it sends the start: they are there soon, or lost.
const MODULE_PATIENCE: Duration = Duration::from_secs(3);
const IN_ONE_MESSAGE: &str = "a control variate comes in one message, never in pieces";

impl Agent {
    /// Hands a model to whoever waits for it.
    pub(super) fn model_heard(&mut self, uri: ModelUri, payload: &Bytes, turn: &mut Turn) {
        let need = Need::Model(uri.clone());
        if !self.listens_to(&need) {
            return;
        }
        turn.unlisten(Topic::Model { uri: uri.clone() });
        self.models.put(uri, Known::Whole(payload.clone()), self.config.models_bytes_max);
        let here = BaseModel::Here(payload.clone());
        self.supply(&need, |kit| kit.model = Some(here.clone()), turn);
    }

    /// A model comes in pieces.
    pub(super) fn blob_heard(&mut self, uri: ModelUri, blob: Manifest, turn: &mut Turn) {
        let need = Need::Model(uri.clone());
        if !self.listens_to(&need) {
            return;
        }
        turn.unlisten(Topic::Model { uri: uri.clone() });
        let known = Known::Pieces(Box::new(blob.clone()));
        self.models.put(uri, known, self.config.models_bytes_max);
        self.fetch(need, blob, turn);
    }

    pub(super) fn fetch(&mut self, need: Need, blob: Manifest, turn: &mut Turn) {
        turn.effect(Effect::Begin(blob.clone()));
        self.fetches.insert(need, blob);
    }

    /// The disk was looked at.
    pub(super) fn begun(&mut self, sha256: Digest, have: Result<Bitmap, String>, turn: &mut Turn) {
        let is_meant = |stage: &Stage| matches!(stage, Stage::Beginning);
        let Some(need) = &self.fetches.find(sha256, is_meant) else { return };
        let have = match have {
            Ok(have) => have,
            Err(why) => return self.fetch_failed(need, &why, turn),
        };
        let Some(fetch) = self.fetches.get_mut(need) else { return };
        let blob = fetch.blob.clone();
        let stall_max = self.config.model_wait.saturating_add(STALL_ROOM);
        let patience = match need {
            Need::Model(_) | Need::Variate(_) => Rules::default().patience,
            Need::Module(_) => MODULE_PATIENCE,
        };
        let rules = Rules { stall_max, patience, ..Rules::default() };
        let mut assembly = Assembly::new(blob.clone(), Way::Retained, rules);
        assembly.restore(&have);
        let steps = if self.link.up { assembly.connected(turn.now) } else { vec![] };
        fetch.stage = Stage::Coming(Box::new(assembly));
        if !have.is_full() {
            turn.note(Note::Fetching { need: need.clone(), blob, have: have.count() });
        }
        self.progressed(need, turn);
        self.follow(need, steps, turn);
    }

    /// A piece of a model. What is refused is counted there; a flood of it gets no answer.
    pub(super) fn chunk_heard(&mut self, need: &Need, index: u32, bytes: Bytes, turn: &mut Turn) {
        let Some(assembly) = self.fetches.coming(need) else { return };
        if let Ok(steps) = assembly.chunk(index, bytes, turn.now) {
            self.follow(need, steps, turn);
        }
    }

    pub(super) fn stored(
        &mut self,
        sha256: Digest,
        index: u32,
        result: Result<(), String>,
        turn: &mut Turn,
    ) {
        for need in &self.fetches.needs() {
            let Some(assembly) = self.fetches.coming(need) else { continue };
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
                self.progressed(need, turn);
            }
            self.follow(need, steps, turn);
        }
    }

    /// A model is on the disk as a whole, and pinned once; or it is not what was promised.
    pub(super) fn fetched(&mut self, sha256: Digest, result: Result<(), String>, turn: &mut Turn) {
        let is_meant = |stage: &Stage| matches!(stage, Stage::Finishing { .. });
        let need = self.fetches.find(sha256, is_meant);
        match (result, need) {
            (Ok(()), Some(need)) => self.run_on(&need, sha256, turn),
            (Ok(()), None) => turn.effect(Effect::Release(sha256)),
            (Err(why), Some(need)) => self.fetch_failed(&need, &why, turn),
            (Err(_), None) => {}
        }
    }

    /// Runs the tasks that waited for this model; each has a pin of its own.
    fn run_on(&mut self, need: &Need, sha256: Digest, turn: &mut Turn) {
        if let Some(fetch) = self.fetches.remove(need)
            && let Stage::Finishing { refused } = fetch.stage
        {
            turn.note(Note::Fetched { need: need.clone(), blob: fetch.blob, refused });
        }
        let count = self.waiting.values().filter(|waiting| waiting.lacks.contains(need)).count();
        if count > 0 {
            turn.effect(Effect::Hold(vec![sha256; count]));
        }
        let give = |kit: &mut Kit| match need {
            Need::Model(_) => kit.model = Some(BaseModel::Stored(sha256)),
            Need::Module(_) => kit.module = Some(Box::new(sha256)),
            Need::Variate(_) => unreachable!("{IN_ONE_MESSAGE}"),
        };
        self.supply(need, give, turn);
        turn.effect(Effect::Release(sha256));
    }

    /// Asks again for what is overdue.
    pub(super) fn attend_fetches(&mut self, turn: &mut Turn) {
        for need in &self.fetches.needs() {
            let Some(assembly) = self.fetches.coming(need) else { continue };
            if assembly.deadline().is_some_and(|deadline| turn.now >= deadline) {
                let steps = assembly.tick(turn.now);
                self.follow(need, steps, turn);
            }
        }
    }

    /// Pieces that were asked for before the connection was lost are asked for again.
    pub(super) fn go_on_fetching(&mut self, turn: &mut Turn) {
        for need in &self.fetches.needs() {
            let Some(assembly) = self.fetches.coming(need) else { continue };
            let steps = assembly.connected(turn.now);
            self.follow(need, steps, turn);
        }
    }

    /// Nobody waits for this model any more, if that is so.
    pub(super) fn let_fetch_go(&mut self, need: &Need, turn: &mut Turn) {
        if self.awaits(need) {
            return;
        }
        let Some(mut fetch) = self.fetches.remove(need) else {
            return match need {
                Need::Model(uri) => turn.unlisten(Topic::Model { uri: uri.clone() }),
                Need::Variate(round) => turn.unlisten(Topic::RoundVariate { round: round.clone() }),
                Need::Module(_) => {}
            };
        };
        if let Stage::Coming(assembly) = &mut fetch.stage {
            unsubscribe(need, assembly.abandon(), turn);
        }
        turn.effect(Effect::Abandon(fetch.blob));
    }

    /// Somebody lacks pieces of an update.
    pub(super) fn wanted(&mut self, wanted: &UpdateWants, turn: &mut Turn) {
        if wanted.proplet_id != self.proplet || self.link.closing {
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
    fn follow(&mut self, need: &Need, steps: Vec<Step>, turn: &mut Turn) {
        for step in steps {
            let Some(fetch) = self.fetches.get_mut(need) else { return };
            let blob = fetch.blob.clone();
            match step {
                Step::Subscribe(index) => turn.listen(piece(need, index)),
                Step::Unsubscribe(index) => turn.unlisten(piece(need, index)),
                Step::Ask(_) => self.ask(need, turn),
                Step::Store { index, bytes } => turn.effect(Effect::Store { blob, index, bytes }),
                Step::Done => {
                    let refused = match &fetch.stage {
                        Stage::Coming(assembly) => assembly.counts().refused.values().sum(),
                        Stage::Beginning | Stage::Finishing { .. } => 0,
                    };
                    fetch.stage = Stage::Finishing { refused };
                    turn.effect(Effect::Finish(blob));
                }
                Step::Failed { reason } => self.fetch_failed(need, &reason.to_string(), turn),
            }
        }
    }

    fn fetch_failed(&mut self, need: &Need, why: &str, turn: &mut Turn) {
        if let Need::Model(uri) = need {
            self.models.forget(uri);
        }
        if let Some(mut fetch) = self.fetches.remove(need) {
            if let Stage::Coming(assembly) = &mut fetch.stage {
                unsubscribe(need, assembly.abandon(), turn);
            }
            turn.effect(Effect::Abandon(fetch.blob));
        }
        let lacking = self.waiting.iter().filter(|(_, waiting)| waiting.lacks.contains(need));
        let lacking: Vec<_> =
            lacking.map(|(task, waiting)| (task.clone(), waiting.start.attempt)).collect();
        for (task, attempt) in lacking {
            if let Some(waiting) = self.waiting.get_mut(&task) {
                waiting.lacks.retain(|it| it != need);
            }
            self.let_go(&task, attempt, turn);
            let failure = missing(need, format!("{need} cannot be had: {why}"));
            self.conclude(&task, attempt, failure.into(), turn);
        }
    }

    /// Who waits for this waits from now on.
    fn progressed(&mut self, need: &Need, turn: &Turn) {
        let until = turn.now + self.config.model_wait;
        let waiting = self.waiting.values_mut().filter(|waiting| waiting.lacks.contains(need));
        waiting.for_each(|waiting| waiting.until = until);
    }

    /// Gives what has come to all that wait for it; those that lack nothing else run.
    pub(super) fn supply(&mut self, need: &Need, give: impl Fn(&mut Kit), turn: &mut Turn) {
        let mut ready: Vec<TaskId> = vec![];
        for waiting in self.waiting.values_mut().filter(|it| it.lacks.contains(need)) {
            waiting.lacks.retain(|it| it != need);
            give(&mut waiting.kit);
            if waiting.lacks.is_empty() {
                ready.push(waiting.start.id.clone());
            }
        }
        for task in ready {
            if let Some(waiting) = self.waiting.remove(&task) {
                self.run(waiting, turn);
            }
        }
    }

    /// Tells whoever holds this that its pieces do not come.
    fn ask(&self, need: &Need, turn: &mut Turn) {
        match need {
            Need::Model(ModelUri { line, version }) => {
                let wants = ModelWants { line: line.clone(), version: *version };
                turn.publish(wants.seal());
            }
            Need::Module(sha256) => {
                let proplet_id = self.proplet.clone();
                turn.publish(ModuleWants { proplet_id, sha256: *sha256 }.seal());
            }
            Need::Variate(_) => unreachable!("{IN_ONE_MESSAGE}"),
        }
    }

    /// Whether it was not heard yet what this model is.
    pub(super) fn listens_to(&self, need: &Need) -> bool {
        self.awaits(need) && !self.fetches.contains(need)
    }
}

/// Where a piece is.
fn piece(need: &Need, index: u32) -> Topic {
    match need {
        Need::Model(uri) => Topic::ModelChunk { uri: uri.clone(), index },
        Need::Module(sha256) => Topic::ModuleChunk { sha256: *sha256, index },
        Need::Variate(_) => unreachable!("{IN_ONE_MESSAGE}"),
    }
}

fn read(round: &RoundId, moves: Moves, turn: &mut Turn) {
    for (blob, index) in moves.reads {
        turn.effect(Effect::ReadChunk { round: round.clone(), blob, index });
    }
}

fn unsubscribe(need: &Need, steps: Vec<Step>, turn: &mut Turn) {
    for step in steps {
        if let Step::Unsubscribe(index) = step {
            turn.unlisten(piece(need, index));
        }
    }
}
