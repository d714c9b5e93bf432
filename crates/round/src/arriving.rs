//! Updates whose tensors come in pieces: from their offer to the file that is counted.
//!
//! ```text
//! Queued --> Beginning --> Coming --> Whole --> Finishing --> counted, or rejected
//!    ^       what is on    pieces       |       the whole
//!    |       the disk?                  v       is checked
//!    +------------------------------ Waiting, while no round can take it
//! ```
//!
//! A few at a time, and of each a window of pieces: that is all the memory they take. Nothing here
//! is kept: the proplet says its offer again until its verdict, and what has come is on the disk.

use std::collections::BTreeMap;

use bytes::Bytes;
use encoding::Encoding;
use protocol::{
    Digest, Letter as _, PropletId, Rejection, RoundId, Schema, Timestamp,
    message::{UpdateOffer, UpdateWants, Wants},
};
use transfer::{Assembly, Bitmap, Rules, Step, Way};

use crate::{Effect, Kept, Note, Objection, Rounds, round::Round, turn::Turn};

/// Transfers that take memory at the same time.
const ACTIVE_MAX: usize = 8;
/// Transfers that wait for their turn; whoever comes later offers again.
const QUEUED_MAX: usize = 10_000;

pub(crate) type Key = (RoundId, PropletId);
pub(crate) type Coded = (Encoding, Option<Kept>);
/// What an update in pieces has to hold, and how it is written.
pub(crate) type Holds = (Schema, Option<Coded>);

/// Every update that is on its way in pieces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arriving {
    pub(crate) transfers: BTreeMap<Key, Transfer>,
    connected: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    pub(crate) offer: UpdateOffer,
    pub(crate) fingerprint: Digest,
    /// What it has to hold.
    pub(crate) schema: Schema,
    /// How it is written, and the numbers of its base model.
    pub(crate) coded: Option<Coded>,
    pub(crate) stage: Stage,
    /// Who came first is served first.
    since: Timestamp,
}

#[derive(Clone, Debug)]
pub(crate) enum Stage {
    Queued,
    Beginning,
    Coming(Box<Assembly>),
    /// Every piece is here.
    Whole,
    Finishing,
    /// It is here, and nobody can say yet whether it counts: it stays on the disk while there is
    /// room, and costs nothing else.
    Waiting,
}

impl Stage {
    const fn is_active(&self) -> bool {
        match self {
            Self::Queued | Self::Waiting => false,
            Self::Beginning | Self::Coming(_) | Self::Whole | Self::Finishing => true,
        }
    }
}

impl Arriving {
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let deadline = |transfer: &Transfer| match &transfer.stage {
            Stage::Coming(assembly) => assembly.deadline(),
            Stage::Queued | Stage::Beginning | Stage::Whole | Stage::Finishing | Stage::Waiting => {
                None
            }
        };
        self.transfers.values().filter_map(deadline).min()
    }

    pub(crate) fn disconnected(&mut self) {
        self.connected = false;
        for transfer in self.transfers.values_mut() {
            if let Stage::Coming(assembly) = &mut transfer.stage {
                assembly.disconnected();
            }
        }
    }

    /// Takes an offer that is right as far as can be known; one that is on its way goes on.
    pub(crate) fn offered(
        &mut self,
        (offer, fingerprint): (UpdateOffer, Digest),
        (schema, coded): Holds,
        turn: &mut Turn,
    ) {
        let key = (offer.round_id.clone(), offer.proplet_id.clone());
        match self.transfers.get(&key) {
            Some(before) if before.fingerprint == fingerprint => return,
            Some(_) => self.give_up(&key, turn),
            None if self.transfers.len() >= QUEUED_MAX => return,
            None => {}
        }
        let stage = Stage::Queued;
        let transfer = Transfer { offer, fingerprint, schema, coded, stage, since: turn.now };
        self.transfers.insert(key, transfer);
    }

    /// What has come stays on the disk for a while: it may be offered again.
    fn give_up(&mut self, key: &Key, turn: &mut Turn) {
        if let Some(transfer) = self.transfers.remove(key)
            && transfer.stage.is_active()
        {
            turn.effect(Effect::Abandon(transfer.offer.blob));
        }
    }

    pub(crate) fn failed(&mut self, key: &Key, what: String, turn: &mut Turn) {
        self.give_up(key, turn);
        let (round, proplet) = key.clone();
        turn.note(Note::ReceptionFailed { round, proplet, what });
    }

    /// Begins what may begin now.
    fn fill(&mut self, turn: &mut Turn) {
        let active = self.transfers.values().filter(|it| it.stage.is_active()).count();
        let queued = self.transfers.iter().filter(|(_, it)| matches!(it.stage, Stage::Queued));
        let mut queued: Vec<(Timestamp, Key)> =
            queued.map(|(key, it)| (it.since, key.clone())).collect();
        queued.sort_unstable();
        for (_, key) in queued.into_iter().take(ACTIVE_MAX.saturating_sub(active)) {
            if let Some(transfer) = self.transfers.get_mut(&key) {
                transfer.stage = Stage::Beginning;
                turn.effect(Effect::Begin(transfer.offer.blob.clone()));
            }
        }
    }

    pub(crate) fn find(&self, sha256: Digest, is_meant: impl Fn(&Stage) -> bool) -> Option<Key> {
        let mut transfers = self.transfers.iter();
        let found = transfers.find(|(_, transfer)| {
            transfer.offer.blob.sha256() == sha256 && is_meant(&transfer.stage)
        });
        found.map(|(key, _)| key.clone())
    }

    pub(crate) fn wait(&mut self, key: &Key) {
        if let Some(transfer) = self.transfers.get_mut(key) {
            transfer.stage = Stage::Waiting;
        }
    }

    /// Does what a transfer asks for.
    fn follow(&mut self, key: &Key, steps: Vec<Step>, turn: &mut Turn) {
        for step in steps {
            let Some(transfer) = self.transfers.get_mut(key) else { return };
            let blob = transfer.offer.blob.clone();
            match step {
                Step::Ask(indexes) => {
                    let (round_id, proplet_id) = key.clone();
                    let indexes = indexes.into_iter().collect();
                    let wants = Wants { sha256: blob.sha256(), indexes };
                    turn.publish(UpdateWants { round_id, proplet_id, wants }.seal());
                }
                Step::Store { index, bytes } => turn.effect(Effect::Store { blob, index, bytes }),
                Step::Done => transfer.stage = Stage::Whole,
                Step::Failed { reason } => self.failed(key, reason.to_string(), turn),
                // Nobody retains the pieces of updates.
                Step::Subscribe(_) | Step::Unsubscribe(_) => {}
            }
        }
    }

    fn coming(&mut self, key: &Key) -> Option<&mut Assembly> {
        match &mut self.transfers.get_mut(key)?.stage {
            Stage::Coming(assembly) => Some(assembly),
            Stage::Queued | Stage::Beginning | Stage::Whole | Stage::Finishing | Stage::Waiting => {
                None
            }
        }
    }
}

impl Rounds {
    /// Pieces that were asked for before the connection was lost are asked for again.
    pub(crate) fn go_on_arriving(&mut self, turn: &mut Turn) {
        self.arriving.connected = true;
        let keys: Vec<Key> = self.arriving.transfers.keys().cloned().collect();
        for key in keys {
            let steps = self.arriving.coming(&key).map(|assembly| assembly.connected(turn.now));
            self.arriving.follow(&key, steps.unwrap_or_default(), turn);
        }
    }

    /// What is due: pieces to ask for again, transfers to begin, and an end to those of rounds that
    /// take no more.
    pub(crate) fn attend_arriving(&mut self, turn: &mut Turn) {
        if self.arriving.transfers.is_empty() {
            return;
        }
        let takes = |round: &RoundId| {
            let open = self.open.get(round);
            open.is_some_and(|open| open.is_collecting() || open.spec.stream.is_some())
                || self.lingering.get(round).is_some()
        };
        let keys = self.arriving.transfers.keys();
        let late: Vec<Key> = keys.filter(|(round, _)| !takes(round)).cloned().collect();
        for key in late {
            self.arriving.give_up(&key, turn);
            let what = "the round has closed while its pieces came";
            let objection = Objection::new(Rejection::RoundClosed, what);
            let (round, proplet) = key;
            self.reject(Some(round), Some(proplet), objection, turn);
        }
        let due: Vec<Key> = self.arriving.transfers.keys().cloned().collect();
        for key in due {
            let Some(assembly) = self.arriving.coming(&key) else { continue };
            if assembly.deadline().is_some_and(|deadline| turn.now >= deadline) {
                let steps = assembly.tick(turn.now);
                self.arriving.follow(&key, steps, turn);
            }
        }
        self.finish_whole(turn);
        self.arriving.fill(turn);
    }

    /// A piece of an update.
    pub(crate) fn piece(&mut self, key: &Key, index: u32, bytes: Bytes, turn: &mut Turn) {
        let now = turn.now;
        let Some(assembly) = self.arriving.coming(key) else { return };
        // What is refused is counted there; whoever floods us gets no answer and no line each.
        if let Ok(steps) = assembly.chunk(index, bytes, now) {
            self.arriving.follow(key, steps, turn);
        }
    }

    pub(crate) fn begun(&mut self, sha256: Digest, have: Result<Bitmap, String>, turn: &mut Turn) {
        let is_meant = |stage: &Stage| matches!(stage, Stage::Beginning);
        let Some(key) = self.arriving.find(sha256, is_meant) else { return };
        let have = match have {
            Ok(have) => have,
            Err(why) => return self.arriving.failed(&key, why, turn),
        };
        let connected = self.arriving.connected;
        let Some(transfer) = self.arriving.transfers.get_mut(&key) else { return };
        let blob = transfer.offer.blob.clone();
        let (round, proplet) = key.clone();
        let (len, chunks) = (blob.bytes(), blob.count());
        turn.note(Note::Receiving { round, proplet, len, chunks, have: have.count() });
        let mut assembly = Assembly::new(blob, Way::Pulled, Rules::default());
        assembly.restore(&have);
        let steps = if connected { assembly.connected(turn.now) } else { vec![] };
        transfer.stage = Stage::Coming(Box::new(assembly));
        self.arriving.follow(&key, steps, turn);
    }

    pub(crate) fn stored(
        &mut self,
        sha256: Digest,
        index: u32,
        result: Result<(), String>,
        turn: &mut Turn,
    ) {
        let keys: Vec<Key> = self.arriving.transfers.keys().cloned().collect();
        for key in keys {
            let Some(assembly) = self.arriving.coming(&key) else { continue };
            if assembly.manifest().sha256() != sha256 {
                continue;
            }
            let steps = match &result {
                Ok(()) => assembly.stored(index, turn.now),
                Err(_) => {
                    assembly.store_failed(index, turn.now);
                    vec![]
                }
            };
            self.arriving.follow(&key, steps, turn);
        }
    }
}

impl Round {
    /// What an update of it has to hold; nothing while its base model is unknown.
    pub(crate) fn holds(&self) -> Option<Holds> {
        let base = self.base.as_ref()?;
        let coded = self.spec.encoding.clone().map(|it| (it, base.values.clone()));
        Some((self.spec.update_schema(&base.schema), coded))
    }
}
