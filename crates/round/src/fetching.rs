//! The numbers of base models that are too large for one message: fetched piece by piece, as
//! proplets fetch them, where a round needs them.
//!
//! ```text
//! Beginning --> Coming --> Finishing --> the rounds that wait for it know their base
//! what is on    pieces     the whole
//! the disk?                is checked
//! ```
//!
//! Nothing here is kept: what has come is on the disk. After a restart the model is heard again.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::{
    Digest, Filter, Form, Letter as _, Manifest, ModelUri, Output, Schema, Timestamp, Topic,
    message::ModelWants,
};
use transfer::{Assembly, Bitmap, Rules, Step, Way};

use crate::{
    Base, BaseModel, Effect, Kept, Note, Objection, Rounds, StoredBlob, round::Round, turn::Turn,
};

/// The models under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fetching {
    models: BTreeMap<ModelUri, Fetch>,
    connected: bool,
}

#[derive(Clone, Debug)]
struct Fetch {
    blob: Manifest,
    schema: Schema,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    Beginning,
    Coming(Box<Assembly>),
    Finishing,
}

impl Fetching {
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let deadline = |fetch: &Fetch| match &fetch.stage {
            Stage::Coming(assembly) => assembly.deadline(),
            Stage::Beginning | Stage::Finishing => None,
        };
        self.models.values().filter_map(deadline).min()
    }

    pub(crate) fn disconnected(&mut self) {
        self.connected = false;
        for fetch in self.models.values_mut() {
            if let Stage::Coming(assembly) = &mut fetch.stage {
                assembly.disconnected();
            }
        }
    }

    /// Whether this blob is a model under way.
    pub(crate) fn has(&self, sha256: Digest) -> bool {
        self.models.values().any(|fetch| fetch.blob.sha256() == sha256)
    }

    fn uris(&self) -> Vec<ModelUri> {
        self.models.keys().cloned().collect()
    }

    fn find(&self, sha256: Digest, is_meant: impl Fn(&Stage) -> bool) -> Option<ModelUri> {
        let mut models = self.models.iter();
        let found = models.find(|(_, it)| it.blob.sha256() == sha256 && is_meant(&it.stage));
        found.map(|(uri, _)| uri.clone())
    }

    fn coming(&mut self, uri: &ModelUri) -> Option<&mut Assembly> {
        match &mut self.models.get_mut(uri)?.stage {
            Stage::Coming(assembly) => Some(assembly),
            Stage::Beginning | Stage::Finishing => None,
        }
    }

    fn begin(&mut self, uri: &ModelUri, blob: Manifest, schema: Schema, turn: &mut Turn) {
        if self.models.contains_key(uri) {
            return;
        }
        turn.effect(Effect::Begin(blob.clone()));
        self.models.insert(uri.clone(), Fetch { blob, schema, stage: Stage::Beginning });
    }

    fn end(&mut self, uri: &ModelUri, turn: &mut Turn) {
        let Some(mut fetch) = self.models.remove(uri) else { return };
        if let Stage::Coming(assembly) = &mut fetch.stage {
            for step in assembly.abandon() {
                if let Step::Unsubscribe(index) = step {
                    turn.out.push(Output::Unlisten(of_piece(uri, index)));
                }
            }
        }
        turn.effect(Effect::Abandon(fetch.blob));
    }

    fn follow(&mut self, uri: &ModelUri, steps: Vec<Step>, turn: &mut Turn) {
        for step in steps {
            let Some(fetch) = self.models.get_mut(uri) else { return };
            let blob = fetch.blob.clone();
            match step {
                Step::Subscribe(index) => {
                    turn.out.push(Output::Listen(of_piece(uri, index)));
                }
                Step::Unsubscribe(index) => {
                    turn.out.push(Output::Unlisten(of_piece(uri, index)));
                }
                Step::Ask(_) => {
                    turn.publish(ModelWants { line: uri.line.clone(), version: uri.version }.seal())
                }
                Step::Store { index, bytes } => turn.effect(Effect::Store { blob, index, bytes }),
                Step::Done => {
                    fetch.stage = Stage::Finishing;
                    let schema = fetch.schema.clone();
                    turn.effect(Effect::Finish { blob, schema });
                }
                Step::Failed { reason } => self.failed(uri, reason.to_string(), turn),
            }
        }
    }

    /// It begins anew when the model is heard again, as long as a round waits for it.
    fn failed(&mut self, uri: &ModelUri, what: String, turn: &mut Turn) {
        self.end(uri, turn);
        turn.note(Note::BadBase { model: uri.clone(), what });
    }
}

impl Rounds {
    /// What a model in pieces is made of is known: where its numbers are needed, they are fetched.
    pub(crate) fn fetch_values(
        &mut self,
        uri: &ModelUri,
        (blob, schema): (Manifest, Schema),
        turn: &mut Turn,
    ) {
        if self.lacks_values(uri) {
            self.fetching.begin(uri, blob, schema, turn);
        }
    }

    fn lacks_values(&self, uri: &ModelUri) -> bool {
        self.open.values().any(|round| waits(round, uri))
    }

    pub(crate) fn go_on_fetching(&mut self, turn: &mut Turn) {
        self.fetching.connected = true;
        for uri in self.fetching.uris() {
            let steps = self.fetching.coming(&uri).map(|assembly| assembly.connected(turn.now));
            self.fetching.follow(&uri, steps.unwrap_or_default(), turn);
        }
    }

    /// What is due, and an end to what nobody waits for any longer.
    pub(crate) fn attend_fetching(&mut self, turn: &mut Turn) {
        for uri in self.fetching.uris() {
            if !self.lacks_values(&uri) {
                self.fetching.end(&uri, turn);
                continue;
            }
            let Some(assembly) = self.fetching.coming(&uri) else { continue };
            if assembly.deadline().is_some_and(|deadline| turn.now >= deadline) {
                let steps = assembly.tick(turn.now);
                self.fetching.follow(&uri, steps, turn);
            }
        }
    }

    pub(crate) fn model_piece(
        &mut self,
        uri: &ModelUri,
        index: u32,
        bytes: Bytes,
        turn: &mut Turn,
    ) {
        let Some(assembly) = self.fetching.coming(uri) else { return };
        if let Ok(steps) = assembly.chunk(index, bytes, turn.now) {
            self.fetching.follow(uri, steps, turn);
        }
    }

    pub(crate) fn model_begun(
        &mut self,
        sha256: Digest,
        have: Result<Bitmap, String>,
        turn: &mut Turn,
    ) {
        let is_meant = |stage: &Stage| matches!(stage, Stage::Beginning);
        let Some(uri) = self.fetching.find(sha256, is_meant) else { return };
        let have = match have {
            Ok(have) => have,
            Err(why) => return self.fetching.failed(&uri, why, turn),
        };
        let connected = self.fetching.connected;
        let Some(fetch) = self.fetching.models.get_mut(&uri) else { return };
        let mut assembly = Assembly::new(fetch.blob.clone(), Way::Retained, Rules::default());
        assembly.restore(&have);
        let steps = if connected { assembly.connected(turn.now) } else { vec![] };
        fetch.stage = Stage::Coming(Box::new(assembly));
        self.fetching.follow(&uri, steps, turn);
    }

    pub(crate) fn model_stored(
        &mut self,
        sha256: Digest,
        index: u32,
        result: &Result<(), String>,
        turn: &mut Turn,
    ) {
        for uri in self.fetching.uris() {
            let Some(assembly) = self.fetching.coming(&uri) else { continue };
            if assembly.manifest().sha256() != sha256 {
                continue;
            }
            let steps = match result {
                Ok(()) => assembly.stored(index, turn.now),
                Err(_) => {
                    assembly.store_failed(index, turn.now);
                    vec![]
                }
            };
            self.fetching.follow(&uri, steps, turn);
        }
    }

    /// A model is on the disk as a whole, and pinned once; each round that waits for it needs a pin
    /// of its own.
    pub(crate) fn model_received(
        &mut self,
        sha256: Digest,
        result: Result<(), Objection>,
        turn: &mut Turn,
    ) {
        let is_meant = |stage: &Stage| matches!(stage, Stage::Finishing);
        let Some(uri) = self.fetching.find(sha256, is_meant) else { return };
        if let Err(why) = result {
            return self.fetching.failed(&uri, why.what, turn);
        }
        let Some(fetch) = self.fetching.models.remove(&uri) else { return };
        let rounds = self.open.values().filter(|round| waits(round, &uri)).count();
        (0..rounds).for_each(|_| turn.effect(Effect::Pin(sha256)));
        let blob = StoredBlob { sha256, bytes: fetch.blob.bytes() };
        let values = Some(Kept::Stored(blob));
        let (schema, form) = (fetch.schema, Form::Safetensors);
        let base = Base { schema, form, values, sha256: Some(sha256) };
        self.model(BaseModel { uri, base, digest: sha256 }, turn);
        turn.effect(Effect::Drop(sha256));
    }
}

/// Whether the round cannot go on without the numbers of this model.
fn waits(round: &Round, uri: &ModelUri) -> bool {
    let lacks = round.is_collecting() && round.base.is_none();
    lacks && round.spec.base == *uri && round.spec.needs_values()
}

fn of_piece(uri: &ModelUri, index: u32) -> Filter {
    Filter::Exactly(Topic::ModelChunk { uri: uri.clone(), index })
}
