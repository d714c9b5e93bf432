//! The updates whose verdict has not been heard: kept, and said again until it is.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::{Entry, Envelope, PropletId, RoundId, Timestamp, Topic};

use crate::{backoff, record::UPDATES};

/// Updates by round, within a number of bytes.
#[derive(Debug)]
pub(crate) struct Updates {
    sender: PropletId,
    bytes_max: usize,
    seed: u64,
    waiting: BTreeMap<RoundId, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    payload: Bytes,
    said: u32,
    due: Timestamp,
}

impl Updates {
    pub(crate) fn new(sender: PropletId, bytes_max: usize, seed: u64) -> Self {
        let seed = backoff::hash(seed, sender.as_str());
        Self { sender, bytes_max, seed, waiting: BTreeMap::new() }
    }

    pub(crate) fn contains(&self, round: &RoundId) -> bool {
        self.waiting.contains_key(round)
    }

    /// How many there are, and their bytes, if `len` bytes more are too many.
    pub(crate) fn full(&self, len: usize) -> Option<(usize, usize)> {
        let bytes: usize = self.waiting.values().map(|waiting| waiting.payload.len()).sum();
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
        self.waiting.insert(round, Waiting { payload, said: 0, due: Timestamp::ZERO });
    }

    /// The verdict was heard.
    pub(crate) fn forget(&mut self, round: &RoundId) -> Option<Entry> {
        self.waiting.remove(round)?;
        Some(Entry::forget(UPDATES, round))
    }

    /// Everything is due at once, and from the beginning: the broker may have lost it.
    pub(crate) fn start_over(&mut self) {
        for waiting in self.waiting.values_mut() {
            waiting.said = 0;
            waiting.due = Timestamp::ZERO;
        }
    }

    /// This one is due at once: somebody asked for it.
    pub(crate) fn hurry(&mut self, round: &RoundId) {
        if let Some(waiting) = self.waiting.get_mut(round) {
            waiting.due = Timestamp::ZERO;
        }
    }

    /// What is to be said now.
    pub(crate) fn due(&mut self, now: Timestamp) -> Vec<Envelope> {
        let mut said = vec![];
        for (round, waiting) in &mut self.waiting {
            if waiting.due > now {
                continue;
            }
            waiting.said = waiting.said.saturating_add(1);
            waiting.due =
                now + backoff::wait(waiting.said, backoff::hash(self.seed, round.as_str()));
            let topic = Topic::RoundUpdate { round: round.clone(), proplet: self.sender.clone() };
            said.push(Envelope { topic, payload: waiting.payload.clone() });
        }
        said
    }

    /// When the next one is due.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.waiting.values().map(|waiting| waiting.due).min()
    }
}
