//! The sender's side: answers wants, a few pieces at a time.
//!
//! What is wanted twice is sent once: a piece that waits, is being read, or was sent a moment ago
//! is not queued again. Pieces are read one after the other, and the next is read when one has
//! been handed to the transport; where that holds reports back while its queue is long, no more
//! than a few pieces are ever in memory.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use protocol::{Digest, Manifest, Timestamp, message::Wants};

use crate::Bitmap;

/// What a sender goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferRules {
    /// Pieces that are read, but not handed to the transport, at once.
    pub reads_max: usize,
    /// How long a piece that was sent is not sent again.
    pub repeat_after: Duration,
}

impl Default for OfferRules {
    fn default() -> Self {
        Self { reads_max: 4, repeat_after: Duration::from_millis(250) }
    }
}

/// One blob on its way out.
#[derive(Clone, Debug)]
pub struct Offer {
    manifest: Manifest,
    rules: OfferRules,
    queue: VecDeque<u32>,
    queued: Bitmap,
    reading: BTreeSet<u32>,
    sent_at: BTreeMap<u32, Timestamp>,
    counts: OfferCounts,
}

/// What an offer has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfferCounts {
    pub sent: u64,
    /// Wanted although under way, or sent a moment ago.
    pub repeated: u64,
    /// Could not be read.
    pub failed: u64,
    /// Wants that were refused as a whole.
    pub refused: u64,
}

/// Why wants are not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WantsRefusal {
    #[error("chunks of {wanted} are wanted, {offered} is offered")]
    Foreign { wanted: Digest, offered: Digest },
    #[error("chunk {index} is wanted, there are {count}")]
    OutOfRange { index: u32, count: u32 },
}

impl Offer {
    pub fn new(manifest: Manifest, rules: OfferRules) -> Self {
        Self {
            queued: Bitmap::empty(manifest.count()),
            manifest,
            rules,
            queue: VecDeque::new(),
            reading: BTreeSet::new(),
            sent_at: BTreeMap::new(),
            counts: OfferCounts::default(),
        }
    }

    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub const fn counts(&self) -> OfferCounts {
        self.counts
    }

    /// Whether nothing waits to be read or sent.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.reading.is_empty()
    }

    /// Somebody wants these; answers with the pieces to read now. Say [`Offer::sent`] for each when
    /// it is handed to the transport.
    pub fn wanted(&mut self, wants: &Wants, now: Timestamp) -> Result<Vec<u32>, WantsRefusal> {
        if let Err(refusal) = self.judge(wants) {
            self.counts.refused += 1;
            return Err(refusal);
        }
        for index in &wants.indexes {
            self.enqueue(*index, now);
        }
        Ok(self.next())
    }

    /// All pieces are to be sent, in order.
    pub fn everything(&mut self, now: Timestamp) -> Vec<u32> {
        for index in 0..self.manifest.count() {
            self.enqueue(index, now);
        }
        self.next()
    }

    /// A piece was handed to the transport; answers with the next ones to read.
    pub fn sent(&mut self, index: u32, now: Timestamp) -> Vec<u32> {
        if self.reading.remove(&index) {
            self.counts.sent += 1;
            self.sent_at.insert(index, now);
        }
        self.next()
    }

    /// A piece could not be read. It is forgotten: who lacks it will want it again.
    pub fn failed(&mut self, index: u32) -> Vec<u32> {
        if self.reading.remove(&index) {
            self.counts.failed += 1;
        }
        self.next()
    }

    fn judge(&self, wants: &Wants) -> Result<(), WantsRefusal> {
        let (wanted, offered) = (wants.sha256, self.manifest.sha256());
        if wanted != offered {
            return Err(WantsRefusal::Foreign { wanted, offered });
        }
        let count = self.manifest.count();
        match wants.indexes.iter().find(|index| **index >= count) {
            Some(index) => Err(WantsRefusal::OutOfRange { index: *index, count }),
            None => Ok(()),
        }
    }

    fn enqueue(&mut self, index: u32, now: Timestamp) {
        let lately = self.sent_at.get(&index).is_some_and(|at| now < *at + self.rules.repeat_after);
        if lately || self.queued.contains(index) || self.reading.contains(&index) {
            self.counts.repeated += 1;
            return;
        }
        self.queued.insert(index);
        self.queue.push_back(index);
    }

    fn next(&mut self) -> Vec<u32> {
        let mut reads = vec![];
        while self.reading.len() < self.rules.reads_max.max(1) {
            let Some(index) = self.queue.pop_front() else { break };
            self.queued.remove(index);
            self.reading.insert(index);
            reads.push(index);
        }
        reads
    }
}
