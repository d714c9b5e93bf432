//! Updates in pieces of which every piece is here: checked once a round can take them, and counted.

use protocol::{Digest, Rejection};

use crate::{
    Effect, Kept, Objection, Rounds, StoredBlob, Undecoded,
    arriving::{Stage, Transfer},
    round::Counted,
    turn::Turn,
};

impl Transfer {
    /// All of it is here.
    fn go_on(&mut self, has_to_wait: bool, turn: &mut Turn) {
        let blob = self.offer.blob.clone();
        match (&self.stage, has_to_wait) {
            (Stage::Whole, true) => {
                self.stage = Stage::Waiting;
                turn.effect(Effect::Abandon(blob));
            }
            (Stage::Waiting, false) => self.stage = Stage::Queued,
            (Stage::Whole, false) => {
                self.stage = Stage::Finishing;
                let schema = self.schema.clone();
                turn.effect(match self.coded.clone() {
                    None => Effect::Finish { blob, schema },
                    Some((encoding, base_values)) => {
                        Effect::Decode { blob, schema, encoding, base_values }
                    }
                });
            }
            (
                Stage::Queued
                | Stage::Beginning
                | Stage::Coming(_)
                | Stage::Finishing
                | Stage::Waiting,
                _,
            ) => {}
        }
    }

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

impl Rounds {
    /// Has checked what is here as a whole, once a round can take it.
    pub(crate) fn finish_whole(&mut self, turn: &mut Turn) {
        let here = |stage: &Stage| matches!(stage, Stage::Whole | Stage::Waiting);
        let all = self.arriving.transfers.iter().filter(|(_, it)| here(&it.stage));
        let all = all.map(|((round, proplet), _)| {
            ((round.clone(), proplet.clone()), self.has_to_wait(round, proplet))
        });
        for (key, has_to_wait) in all.collect::<Vec<_>>() {
            if let Some(transfer) = self.arriving.transfers.get_mut(&key) {
                transfer.go_on(has_to_wait, turn);
            }
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
        if result.is_ok() && self.has_to_wait(&key.0, &key.1) {
            turn.effect(Effect::Unpin(pinned));
            return self.arriving.wait(&key);
        }
        let Some(transfer) = self.arriving.transfers.remove(&key) else { return };
        let (round, proplet) = key;
        if self.is_late(&round, &proplet) {
            let arrived = result.map(|_| transfer.counted(counted));
            return self.whole_late((round, proplet), arrived, turn);
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
