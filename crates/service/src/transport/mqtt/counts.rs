//! What a connection has seen, for health reports.

use std::sync::atomic::{AtomicU64, Ordering};

/// A reading of a transport's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that came in, all kinds.
    pub received: u64,
    /// Bytes of their topics and payloads.
    pub received_bytes: u64,
    /// Messages given to the broker, those that are given again included.
    pub sent: u64,
    /// Bytes of their topics and payloads.
    pub sent_bytes: u64,
    /// Messages on topics that are none of the platform's.
    pub foreign: u64,
    /// Messages with a larger payload than is taken.
    pub oversize: u64,
    /// Messages of ours that the broker cannot be given.
    pub unsendable: u64,
    /// Connections that were made.
    pub connections: u64,
    /// Connections that were lost.
    pub losses: u64,
    /// Attempts that came to no connection.
    pub failures: u64,
}

/// The counters themselves, shared between a transport and its task.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub received: AtomicU64,
    pub received_bytes: AtomicU64,
    pub sent: AtomicU64,
    pub sent_bytes: AtomicU64,
    pub foreign: AtomicU64,
    pub oversize: AtomicU64,
    pub unsendable: AtomicU64,
    pub connections: AtomicU64,
    pub losses: AtomicU64,
    pub failures: AtomicU64,
}

impl Counters {
    /// A message goes to the broker.
    pub(super) fn sending(&self, topic: &str, payload: &[u8]) {
        bump(&self.sent);
        weigh(&self.sent_bytes, topic, payload);
    }

    pub(crate) fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            received: read(&self.received),
            received_bytes: read(&self.received_bytes),
            sent: read(&self.sent),
            sent_bytes: read(&self.sent_bytes),
            foreign: read(&self.foreign),
            oversize: read(&self.oversize),
            unsendable: read(&self.unsendable),
            connections: read(&self.connections),
            losses: read(&self.losses),
            failures: read(&self.failures),
        }
    }
}

/// Adds the bytes of one message.
pub(super) fn weigh(counter: &AtomicU64, topic: &str, payload: &[u8]) {
    counter.fetch_add((topic.len() + payload.len()) as u64, Ordering::Relaxed);
}

/// Adds one and returns the new count.
pub(super) fn bump(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed) + 1
}
