//! What happened, in order: handed to whoever writes it down, and condensed into one hash.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// Takes events as they happen.
pub trait TraceSink {
    /// Whether anybody looks; if not, events are only hashed.
    fn wants(&self) -> Wants;

    fn event(&mut self, event: TraceEvent);
}

/// How much a sink wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wants {
    Nothing,
    /// What is in the hash.
    Events,
    /// What the cores say of themselves, too.
    Notes,
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceEvent {
    pub time_us: u64,
    /// Place among events of one time.
    pub class: u8,
    /// The node whose doing it is.
    pub source: String,
    /// Counts what this source has caused.
    pub seq: u64,
    /// `publish`, `deliver`, `connect`, `task_end`, ...
    pub kind: &'static str,
    pub detail: serde_json::Value,
    /// The MQTT message, where it is one.
    pub packet: Option<Packet>,
}

/// An MQTT PUBLISH between a node and the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub client: String,
    pub direction: Direction,
    pub topic: String,
    pub payload: Bytes,
    pub retain: bool,
    pub duplicate: bool,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToBroker,
    FromBroker,
}

/// Wants nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrace;

impl TraceSink for NoTrace {
    fn wants(&self) -> Wants {
        Wants::Nothing
    }

    fn event(&mut self, _event: TraceEvent) {}
}

/// SHA-256 over the canonical bytes of every event, in order. Each byte depends on all before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    hasher: Sha256,
    events: u64,
}

impl Chain {
    pub(crate) fn link(&mut self, head: Head, kind: &str, parts: &[&[u8]]) {
        self.events += 1;
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&head.time_us.to_le_bytes());
        bytes[8..12].copy_from_slice(&head.source.to_le_bytes());
        bytes[12..20].copy_from_slice(&head.seq.to_le_bytes());
        bytes[20] = head.class;
        bytes[21] = u8::try_from(kind.len()).unwrap_or(u8::MAX);
        bytes[22] = u8::try_from(parts.len()).unwrap_or(u8::MAX);
        self.hasher.update(bytes);
        self.hasher.update(kind.as_bytes());
        for part in parts {
            self.hasher.update((part.len() as u64).to_le_bytes());
            self.hasher.update(part);
        }
    }

    /// How many events there were.
    pub(crate) const fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn sha256(&self) -> String {
        let digest = self.hasher.clone().finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Where an event stands in the order of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) time_us: u64,
    pub(crate) class: u8,
    pub(crate) source: u32,
    pub(crate) seq: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_depends_on_every_part_and_its_place() {
        let head = Head { time_us: 1, class: 2, source: 3, seq: 4 };
        let hash = |links: &[(Head, &str, &[&[u8]])]| {
            let mut chain = Chain::default();
            links.iter().for_each(|(head, kind, parts)| chain.link(*head, kind, parts));
            chain.sha256()
        };
        let first = hash(&[(head, "publish", &[b"ab", b"c"])]);
        assert_eq!(first, hash(&[(head, "publish", &[b"ab", b"c"])]));
        assert_ne!(first, hash(&[(head, "publish", &[b"a", b"bc"])]));
        assert_ne!(first, hash(&[(head, "publisha", &[b"b", b"c"])]));
        assert_ne!(first, hash(&[(Head { seq: 5, ..head }, "publish", &[b"ab", b"c"])]));
    }
}
