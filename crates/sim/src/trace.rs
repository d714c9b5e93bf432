//! What happened, in order: handed to whoever writes it down, and condensed into one hash.

use std::{
    sync::mpsc::{SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

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
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// What has not been hashed yet.
    text: Vec<u8>,
    hashing: Hashing,
    events: u64,
}

/// Where it is hashed: a long trace on a thread of its own, which changes nothing but the time.
#[derive(Debug)]
enum Hashing {
    Here(Sha256),
    Beside { texts: SyncSender<Vec<u8>>, thread: JoinHandle<Sha256> },
}

impl Default for Hashing {
    fn default() -> Self {
        Self::Here(Sha256::default())
    }
}

/// So much is hashed at a time.
const TEXT_BYTES: usize = 256 << 10;
/// Texts that may wait to be hashed.
const TEXTS_WAITING: usize = 4;

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
        self.text.extend_from_slice(&bytes);
        self.text.extend_from_slice(kind.as_bytes());
        for part in parts {
            self.text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            self.text.extend_from_slice(part);
        }
        if self.text.len() >= TEXT_BYTES {
            self.hand_over();
        }
    }

    /// How many events there were.
    pub(crate) const fn events(&self) -> u64 {
        self.events
    }

    /// Waits for the thread; what is linked after this is hashed here, or on another.
    pub(crate) fn settle(&mut self) {
        self.hashing = match std::mem::take(&mut self.hashing) {
            Hashing::Here(hasher) => Hashing::Here(hasher),
            Hashing::Beside { texts, thread } => {
                drop(texts);
                Hashing::Here(thread.join().expect("hashing does not panic"))
            }
        };
    }

    /// The hash of all that was linked, once the chain is settled.
    pub(crate) fn sha256(&self) -> String {
        let Hashing::Here(hasher) = &self.hashing else { panic!("the chain is not settled") };
        let digest = hasher.clone().chain_update(&self.text).finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn hand_over(&mut self) {
        let next = Vec::with_capacity(TEXT_BYTES + TEXT_BYTES / 8);
        let text = std::mem::replace(&mut self.text, next);
        if let Hashing::Here(hasher) = &self.hashing {
            self.hashing = beside(hasher.clone());
        }
        match &mut self.hashing {
            Hashing::Here(hasher) => hasher.update(&text),
            Hashing::Beside { texts, .. } => {
                texts.send(text).expect("the thread hashes until nothing more can come");
            }
        }
    }
}

/// Goes on with this hash on a thread; here, if there is none to be had.
fn beside(hasher: Sha256) -> Hashing {
    let (texts, waiting) = sync_channel::<Vec<u8>>(TEXTS_WAITING);
    let own = hasher.clone();
    let hash = move || waiting.iter().fold(own, Sha256::chain_update);
    match thread::Builder::new().name("trace".to_owned()).spawn(hash) {
        Ok(thread) => Hashing::Beside { texts, thread },
        Err(_) => Hashing::Here(hasher),
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

    #[test]
    fn a_long_chain_is_the_hash_of_its_bytes_wherever_it_is_hashed() {
        let mut chain = Chain::default();
        let mut whole = Sha256::new();
        let payload = vec![7; TEXT_BYTES / 3];
        for seq in 0..20 {
            chain.link(Head { time_us: 1, class: 2, source: 3, seq }, "k", &[&payload]);
            let mut head = [0; 24];
            (head[0], head[8], head[12], head[20], head[21], head[22]) =
                (1, 3, u8::try_from(seq).unwrap(), 2, 1, 1);
            whole.update(head);
            whole.update(b"k");
            whole.update((payload.len() as u64).to_le_bytes());
            whole.update(&payload);
            if seq == 9 {
                assert!(matches!(chain.hashing, Hashing::Beside { .. }));
                chain.settle();
            }
        }
        chain.settle();
        let digest: String = whole.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(chain.sha256(), digest);
    }
}
