//! Updates whose tensors come in pieces: from their offer to the file that is counted.
//!
//! ```text
//! Queued --> Beginning --> Coming --> Finishing --> counted, or rejected
//!            what is on    pieces     the whole
//!            the disk?                is checked
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

use crate::{
    Effect, Kept, Note, Objection, Rounds, StoredBlob, Undecoded,
    round::{Counted, Round},
    turn::Turn,
};

/// Transfers that take memory at the same time.
const ACTIVE_MAX: usize = 8;
/// Transfers that wait for their turn; whoever comes later offers again.
const QUEUED_MAX: usize = 10_000;

type Key = (RoundId, PropletId);
type Coded = (Encoding, Option<Kept>);
/// What an update in pieces has to hold, and how it is written.
pub(crate) type Holds = (Schema, Option<Coded>);

/// Every update that is on its way in pieces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arriving {
    transfers: BTreeMap<Key, Transfer>,
    connected: bool,
}

#[derive(Clone, Debug)]
struct Transfer {
    offer: UpdateOffer,
    fingerprint: Digest,
    /// What it has to hold.
    schema: Schema,
    /// How it is written, and the numbers of its base model.
    coded: Option<Coded>,
    stage: Stage,
    /// Who came first is served first.
    since: Timestamp,
}

#[derive(Clone, Debug)]
enum Stage {
    Queued,
    Beginning,
    Coming(Box<Assembly>),
    Finishing,
}

impl Transfer {
    /// What is counted, once it is there: the blob that came, or what it was decoded to.
    fn counted(self, decoded: Option<StoredBlob>) -> Counted {
        let Self { offer, fingerprint, .. } = self;
        let (sha256, bytes) = (offer.blob.sha256(), offer.blob.bytes());
        Counted {
            num_samples: offer.num_samples,
            fingerprint,
            metrics: offer.metrics,
            values: Some(Kept::Stored(decoded.unwrap_or(StoredBlob { sha256, bytes }))),
            left_out: None,
            made_for: None,
        }
    }
}

impl Stage {
    const fn is_active(&self) -> bool {
        match self {
            Self::Queued => false,
            Self::Beginning | Self::Coming(_) | Self::Finishing => true,
        }
    }
}

impl Arriving {
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let deadline = |transfer: &Transfer| match &transfer.stage {
            Stage::Coming(assembly) => assembly.deadline(),
            Stage::Queued | Stage::Beginning | Stage::Finishing => None,
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

    fn failed(&mut self, key: &Key, what: String, turn: &mut Turn) {
        self.give_up(key, turn);
        let (round, proplet) = key.clone();
        turn.note(Note::ReceptionFailed { round, proplet, what });
    }

    /// Begins what may begin now.
    fn fill(&mut self, turn: &mut Turn) {
        let active = self.transfers.values().filter(|it| it.stage.is_active()).count();
        let queued = self.transfers.iter().filter(|(_, it)| !it.stage.is_active());
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

    fn find(&self, sha256: Digest, is_meant: impl Fn(&Stage) -> bool) -> Option<Key> {
        let mut transfers = self.transfers.iter();
        let found = transfers.find(|(_, transfer)| {
            transfer.offer.blob.sha256() == sha256 && is_meant(&transfer.stage)
        });
        found.map(|(key, _)| key.clone())
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
                Step::Done => {
                    transfer.stage = Stage::Finishing;
                    let schema = transfer.schema.clone();
                    turn.effect(match transfer.coded.clone() {
                        None => Effect::Finish { blob, schema },
                        Some((encoding, base_values)) => {
                            Effect::Decode { blob, schema, encoding, base_values }
                        }
                    });
                }
                Step::Failed { reason } => self.failed(key, reason.to_string(), turn),
                // Nobody retains the pieces of updates.
                Step::Subscribe(_) | Step::Unsubscribe(_) => {}
            }
        }
    }

    fn coming(&mut self, key: &Key) -> Option<&mut Assembly> {
        match &mut self.transfers.get_mut(key)?.stage {
            Stage::Coming(assembly) => Some(assembly),
            Stage::Queued | Stage::Beginning | Stage::Finishing => None,
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

    /// The verdict on an update that is here as a whole.
    pub(crate) fn received(
        &mut self,
        sha256: Digest,
        result: Result<(), Objection>,
        turn: &mut Turn,
    ) {
        self.whole(sha256, result.map(|()| None), turn);
    }

    /// The same of one that had to be decoded.
    pub(crate) fn decoded(
        &mut self,
        sha256: Digest,
        result: Result<StoredBlob, Undecoded>,
        turn: &mut Turn,
    ) {
        let result = match result {
            Ok(blob) => Ok(Some(blob)),
            Err(Undecoded::Refused(objection)) => Err(objection),
            Err(Undecoded::Failed(why)) => {
                let is_meant = |stage: &Stage| matches!(stage, Stage::Finishing);
                if let Some(key) = self.arriving.find(sha256, is_meant) {
                    self.arriving.failed(&key, why, turn);
                }
                return;
            }
        };
        self.whole(sha256, result, turn);
    }

    /// `result` names the blob that is to be counted, where it is not the one that came.
    fn whole(
        &mut self,
        sha256: Digest,
        result: Result<Option<StoredBlob>, Objection>,
        turn: &mut Turn,
    ) {
        let is_meant = |stage: &Stage| matches!(stage, Stage::Finishing);
        let counted = result.as_ref().ok().copied().flatten();
        let pinned = counted.map_or(sha256, |blob| blob.sha256);
        let Some(key) = self.arriving.find(sha256, is_meant) else {
            return if result.is_ok() {
                turn.effect(Effect::Drop(pinned))
            };
        };
        let Some(transfer) = self.arriving.transfers.remove(&key) else { return };
        let (round, proplet) = key;
        if self.is_late(&round, &proplet) {
            let arrived = result.map(|_| transfer.counted(counted));
            let is_pinned = arrived.is_ok();
            let taken = self.whole_late((round, proplet), arrived, turn);
            if taken.is_none() && is_pinned {
                turn.effect(Effect::Drop(pinned));
            }
            return;
        }
        let open = self.open.get(&round).filter(|round| round.is_collecting());
        let objection = match (&result, open) {
            (Err(objection), _) => Some(objection.clone()),
            (Ok(_), None) => {
                let what = "the round has closed while the update was checked";
                Some(Objection::new(Rejection::RoundClosed, what))
            }
            (Ok(_), Some(open)) if open.counted.contains_key(&proplet) => {
                let what = "another update of this proplet was counted";
                Some(Objection::new(Rejection::Duplicate, what))
            }
            (Ok(_), Some(_)) => None,
        };
        if let Some(objection) = objection {
            if result.is_ok() {
                turn.effect(Effect::Drop(pinned));
            }
            return self.turn_away((round, proplet), objection, turn);
        }
        self.count(&round, proplet, transfer.counted(counted), turn);
        self.settle(&round, turn);
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
