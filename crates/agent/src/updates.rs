//! The updates whose verdict has not been heard: kept, and said again until it is.

use bytes::Bytes;
use protocol::{Entry, Envelope, PropletId, RoundId, Timestamp, Topic};

use crate::{backoff, record::UPDATES};

/// Updates by round, within a number of bytes.
#[derive(Debug)]
pub(crate) struct Updates {
    sender: PropletId,
    bytes_max: usize,
    seed: u64,
    /// In the order of the rounds' ids.
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    round: RoundId,
    payload: Bytes,
    said: u32,
    due: Timestamp,
}

impl Updates {
    pub(crate) fn new(sender: PropletId, bytes_max: usize, seed: u64) -> Self {
        let seed = backoff::hash(seed, sender.as_str());
        Self { sender, bytes_max, seed, waiting: vec![] }
    }

    pub(crate) fn contains(&self, round: &RoundId) -> bool {
        self.place(round).is_ok()
    }

    /// How many there are, and their bytes, if `len` bytes more are too many.
    pub(crate) fn full(&self, len: usize) -> Option<(usize, usize)> {
        let bytes: usize = self.waiting.iter().map(|waiting| waiting.payload.len()).sum();
        let count = self.waiting.len();
        (count > 0 && bytes.saturating_add(len) > self.bytes_max).then_some((count, bytes))
    }

    /// Keeps an update; it is due at once.
    pub(crate) fn keep(&mut self, round: RoundId, payload: Bytes) -> Entry {
        let entry = Entry::put_bytes(UPDATES, &round, payload.to_vec());
        self.restore(round, payload);
        entry
    }

    /// Takes back what was kept before a restart; it is due at once.
    pub(crate) fn restore(&mut self, round: RoundId, payload: Bytes) {
        let place = self.place(&round);
        let waiting = Waiting { round, payload, said: 0, due: Timestamp::ZERO };
        match place {
            Ok(place) => self.waiting[place] = waiting,
            Err(place) => {
                // Usually it is the only one.
                if self.waiting.is_empty() {
                    self.waiting.reserve_exact(1);
                }
                self.waiting.insert(place, waiting);
            }
        }
    }

    /// The verdict was heard.
    pub(crate) fn forget(&mut self, round: &RoundId) -> Option<Entry> {
        let place = self.place(round).ok()?;
        self.waiting.remove(place);
        if self.waiting.is_empty() {
            self.waiting = vec![];
        }
        Some(Entry::forget(UPDATES, round))
    }

    /// Everything is due at once, and from the beginning: the broker may have lost it.
    pub(crate) fn start_over(&mut self) {
        for waiting in &mut self.waiting {
            waiting.said = 0;
            waiting.due = Timestamp::ZERO;
        }
    }

    /// This one is due at once: somebody asked for it.
    pub(crate) fn hurry(&mut self, round: &RoundId) {
        if let Ok(place) = self.place(round) {
            self.waiting[place].due = Timestamp::ZERO;
        }
    }

    /// What is to be said now.
    pub(crate) fn due(&mut self, now: Timestamp) -> Vec<Envelope> {
        let mut said = vec![];
        for waiting in &mut self.waiting {
            if waiting.due > now {
                continue;
            }
            waiting.said = waiting.said.saturating_add(1);
            waiting.due =
                now + backoff::wait(waiting.said, backoff::hash(self.seed, waiting.round.as_str()));
            let round = waiting.round.clone();
            let topic = Topic::RoundUpdate { round, proplet: self.sender.clone() };
            said.push(Envelope { topic, payload: waiting.payload.clone() });
        }
        said
    }

    /// When the next one is due.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.waiting.iter().map(|waiting| waiting.due).min()
    }

    fn place(&self, round: &RoundId) -> Result<usize, usize> {
        self.waiting.binary_search_by(|waiting| waiting.round.cmp(round))
    }
}
