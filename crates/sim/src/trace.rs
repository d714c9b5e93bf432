//! What happened, in order: handed to whoever writes it down, and condensed into one hash.

use std::{
    sync::mpsc::{SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::queue::Key;

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
    /// Where the text of each event begins, while that of another chain has to come in between.
    marks: Option<Vec<(Key, usize)>>,
    /// How many bytes follow on one another, of which of two chains; of all that is marked no more.
    runs: Vec<(Whose, usize)>,
}

/// One of two chains that are woven into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Own,
    Other,
}

/// What is hashed in one go.
#[derive(Debug)]
enum Text {
    Plain(Vec<u8>),
    Woven { own: Vec<u8>, other: Vec<u8>, runs: Vec<(Whose, usize)> },
}

impl Text {
    fn hash(&self, hasher: &mut Sha256) {
        match self {
            Self::Plain(text) => hasher.update(text),
            Self::Woven { own, other, runs } => {
                let (mut own, mut other) = (&own[..], &other[..]);
                for (whose, len) in runs {
                    let text = match whose {
                        Whose::Own => &mut own,
                        Whose::Other => &mut other,
                    };
                    let (next, rest) = text.split_at(*len);
                    hasher.update(next);
                    *text = rest;
                }
            }
        }
    }
}

/// Where it is hashed: a long trace on a thread of its own, which changes nothing but the time.
#[derive(Debug)]
enum Hashing {
    Here(Sha256),
    Beside { texts: SyncSender<Text>, thread: JoinHandle<Sha256> },
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
        if self.marks.is_none() && self.text.len() >= TEXT_BYTES {
            let text = Text::Plain(self.take_text());
            self.hand_over(text);
        }
    }

    /// An event begins: what is linked from now on belongs to it.
    pub(crate) fn begin(&mut self, key: Key) {
        let Some(marks) = &mut self.marks else { return };
        match marks.last_mut() {
            // The one before has left nothing.
            Some(last) if last.1 == self.text.len() => last.0 = key,
            Some(_) | None => marks.push((key, self.text.len())),
        }
    }

    /// A chain of events that are to be woven into this one.
    pub(crate) fn divide(&mut self) -> Self {
        let text = Text::Plain(self.take_text());
        self.hand_over(text);
        self.marks = Some(vec![]);
        Self { marks: Some(vec![]), ..Self::default() }
    }

    /// Puts the events of both in order, up to now: there is nothing that comes before the last
    /// of them any more.
    pub(crate) fn weave(&mut self, other: &mut Self) {
        let (own_len, other_len) = (self.text.len(), other.text.len());
        let (Some(own), Some(others)) = (&mut self.marks, &mut other.marks) else { return };
        let (mut place, mut other_place) = (0, 0);
        loop {
            let (next, other_next) = (own.get(place), others.get(other_place));
            let (whose, from, end) = match (next, other_next) {
                (None, None) => break,
                (Some((key, from)), other) if other.is_none_or(|(other, _)| key < other) => {
                    place += 1;
                    (Whose::Own, *from, own.get(place).map_or(own_len, |next| next.1))
                }
                (_, Some((_, from))) => {
                    other_place += 1;
                    (Whose::Other, *from, others.get(other_place).map_or(other_len, |next| next.1))
                }
                (Some(_), None) => unreachable!("it comes before nothing"),
            };
            match self.runs.last_mut() {
                Some(last) if last.0 == whose => last.1 += end - from,
                Some(_) | None => self.runs.push((whose, end - from)),
            }
        }
        own.clear();
        others.clear();
        if own_len + other_len >= TEXT_BYTES {
            self.hand_over_both(other);
        }
    }

    /// Ends the weaving.
    pub(crate) fn join(&mut self, other: &mut Self) {
        self.weave(other);
        self.hand_over_both(other);
        self.marks = None;
        self.events += other.events;
    }

    fn hand_over_both(&mut self, other: &mut Self) {
        let (own, other) = (self.take_text(), other.take_text());
        let runs = std::mem::take(&mut self.runs);
        self.hand_over(Text::Woven { own, other, runs });
    }

    fn take_text(&mut self) -> Vec<u8> {
        let next = Vec::with_capacity(TEXT_BYTES + TEXT_BYTES / 8);
        std::mem::replace(&mut self.text, next)
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

    fn hand_over(&mut self, text: Text) {
        if let Hashing::Here(hasher) = &self.hashing {
            self.hashing = beside(hasher.clone());
        }
        match &mut self.hashing {
            Hashing::Here(hasher) => text.hash(hasher),
            Hashing::Beside { texts, .. } => {
                texts.send(text).expect("the thread hashes until nothing more can come");
            }
        }
    }
}

/// Goes on with this hash on a thread; here, if there is none to be had.
fn beside(hasher: Sha256) -> Hashing {
    let (texts, waiting) = sync_channel::<Text>(TEXTS_WAITING);
    let mut own = hasher.clone();
    let hash = move || {
        waiting.iter().for_each(|text| text.hash(&mut own));
        own
    };
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
