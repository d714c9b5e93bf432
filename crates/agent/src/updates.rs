//! The updates whose verdict has not been heard: kept, and said again until it is. One that goes in
//! pieces is offered instead, and its pieces are sent to whoever wants them.

use bytes::Bytes;
use protocol::{
    Digest, Envelope, Manifest, PropletId, RoundId, Timestamp, Topic,
    message::{Wants, is_blob_form, read_update_offer},
};
use transfer::{Offer, OfferRules};

use crate::backoff;

/// Updates by round.
#[derive(Debug)]
pub(crate) struct Updates {
    seed: u64,
    /// In the order of their rounds. There is one, mostly, and a leaf of a map has room for eleven.
    waiting: Vec<(RoundId, Waiting)>,
}

#[derive(Debug)]
struct Waiting {
    payload: Bytes,
    /// Of one that goes in pieces.
    pieces: Option<Box<Pieces>>,
    said: u32,
    due: Timestamp,
}

#[derive(Debug)]
struct Pieces {
    offer: Offer,
    /// Pieces were asked for, or could not be read: said once.
    wanted: bool,
    unreadable: bool,
}

/// What is to be done about the pieces of an update.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    /// To be read next.
    pub(crate) reads: Vec<(Manifest, u32)>,
    /// This is the first time.
    pub(crate) first: bool,
}

impl Moves {
    fn new(offer: &Offer, indexes: Vec<u32>, first: bool) -> Self {
        let read = |index| (offer.manifest().clone(), index);
        Self { reads: indexes.into_iter().map(read).collect(), first }
    }
}

impl Updates {
    pub(crate) fn new(sender: &PropletId, seed: u64) -> Self {
        let seed = backoff::hash(seed, sender.as_str());
        Self { seed, waiting: vec![] }
    }

    pub(crate) fn contains(&self, round: &RoundId) -> bool {
        self.place(round).is_ok()
    }

    /// How many there are, and their bytes, if `len` bytes more are too many.
    pub(crate) fn full(&self, len: usize, bytes_max: usize) -> Option<(usize, usize)> {
        let bytes: usize = self.all().map(|waiting| waiting.payload.len()).sum();
        let count = self.waiting.len();
        (count > 0 && bytes.saturating_add(len) > bytes_max).then_some((count, bytes))
    }

    /// Takes an update in, a new one or one from before a restart; it is due at once.
    pub(crate) fn put(&mut self, round: RoundId, payload: Bytes) {
        let offered = is_blob_form(&payload).then(|| read_update_offer(&payload, None).ok());
        let pieces = offered.flatten().map(|offered| {
            let offer = Offer::new(offered.blob, OfferRules::default());
            Box::new(Pieces { offer, wanted: false, unreadable: false })
        });
        let waiting = Waiting { payload, pieces, said: 0, due: Timestamp::ZERO };
        match self.place(&round) {
            Ok(place) => self.waiting[place].1 = waiting,
            Err(place) => {
                if self.waiting.is_empty() {
                    self.waiting.reserve_exact(1);
                }
                self.waiting.insert(place, (round, waiting));
            }
        }
    }

    /// The verdict was heard: which blob nobody needs any more; `None` if there is no such update.
    pub(crate) fn forget(&mut self, round: &RoundId) -> Option<Option<Digest>> {
        let (_, waiting) = self.waiting.remove(self.place(round).ok()?);
        if self.waiting.is_empty() {
            self.waiting = vec![];
        }
        Some(waiting.pieces.map(|pieces| pieces.offer.manifest().sha256()))
    }

    /// The blobs that are offered, each as often as it is.
    pub(crate) fn blobs(&self) -> Vec<Digest> {
        let pieces = self.all().filter_map(|waiting| waiting.pieces.as_ref());
        pieces.map(|pieces| pieces.offer.manifest().sha256()).collect()
    }

    /// Somebody lacks pieces. Wants of something else than what is offered are counted there.
    pub(crate) fn wanted(&mut self, round: &RoundId, wants: &Wants, now: Timestamp) -> Moves {
        let Some(pieces) = self.pieces(round) else { return Moves::default() };
        let Ok(indexes) = pieces.offer.wanted(wants, now) else { return Moves::default() };
        let first = !std::mem::replace(&mut pieces.wanted, true);
        Moves::new(&pieces.offer, indexes, first)
    }

    /// A piece was read, if it still belongs to what is offered, and goes to the broker now.
    pub(crate) fn sent(
        &mut self,
        (round, sha256): (&RoundId, Digest),
        index: u32,
        now: Timestamp,
    ) -> Option<Moves> {
        let pieces = self.pieces(round)?;
        if pieces.offer.manifest().sha256() != sha256 {
            return None;
        }
        let indexes = pieces.offer.sent(index, now);
        Some(Moves::new(&pieces.offer, indexes, false))
    }

    /// A piece could not be read.
    pub(crate) fn unreadable(&mut self, round: &RoundId, sha256: Digest, index: u32) -> Moves {
        let Some(pieces) = self.pieces(round) else { return Moves::default() };
        if pieces.offer.manifest().sha256() != sha256 {
            return Moves::default();
        }
        let indexes = pieces.offer.failed(index);
        let first = !std::mem::replace(&mut pieces.unreadable, true);
        Moves::new(&pieces.offer, indexes, first)
    }

    /// Everything is due at once, and from the beginning: the broker may have lost it.
    pub(crate) fn start_over(&mut self) {
        for waiting in self.waiting.iter_mut().map(|(_, waiting)| waiting) {
            waiting.said = 0;
            waiting.due = Timestamp::ZERO;
        }
    }

    /// This one is due at once: somebody asked for it.
    pub(crate) fn hurry(&mut self, round: &RoundId) {
        if let Some(waiting) = self.get_mut(round) {
            waiting.due = Timestamp::ZERO;
        }
    }

    /// What this proplet is to say now.
    pub(crate) fn due(&mut self, proplet: &PropletId, now: Timestamp) -> Vec<Envelope> {
        let mut said = vec![];
        for (round, waiting) in &mut self.waiting {
            if waiting.due > now {
                continue;
            }
            waiting.said = waiting.said.saturating_add(1);
            waiting.due =
                now + backoff::wait(waiting.said, backoff::hash(self.seed, round.as_str()));
            let topic = Topic::RoundUpdate { round: round.clone(), proplet: proplet.clone() };
            said.push(Envelope { topic, payload: waiting.payload.clone() });
        }
        said
    }

    /// When the next one is due.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.all().map(|waiting| waiting.due).min()
    }

    fn pieces(&mut self, round: &RoundId) -> Option<&mut Pieces> {
        self.get_mut(round)?.pieces.as_deref_mut()
    }

    fn all(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter().map(|(_, waiting)| waiting)
    }

    fn get_mut(&mut self, round: &RoundId) -> Option<&mut Waiting> {
        let place = self.place(round).ok()?;
        Some(&mut self.waiting[place].1)
    }

    fn place(&self, round: &RoundId) -> Result<usize, usize> {
        self.waiting.binary_search_by(|(known, _)| known.cmp(round))
    }
}
