//! What was said and is not acknowledged yet, in order; survives connections, not the process.
//!
//! Every connection starts over with what the last one left unacknowledged. That repeats messages
//! whose acknowledgement was lost, which QoS 1 allows, and needs no agreement with the broker on
//! what a packet id meant before.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use protocol::{Envelope, Timestamp, Topic};

use crate::{store::PromiseId, transport::Gate};

/// Most messages under way at once.
const FLYING_MAX: usize = 64;
/// Most bytes under way at once; a larger message flies alone.
const FLYING_BYTES_MAX: usize = 32 << 20;
/// A lost connection is not blamed on a smaller message than this.
const SUSPECT_BYTES: usize = 64 << 10;
/// After so many lost connections a message is taken to be the reason.
const STRIKES_MAX: u8 = 5;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    letters: BTreeMap<u64, Outgoing>,
    /// The place of the next letter.
    end: u64,
    /// The place of the next letter to hand over.
    cursor: u64,
    /// Handed to the client, without a packet id so far.
    handed: VecDeque<u64>,
    flying: BTreeMap<u16, Flying>,
    flying_bytes: usize,
    /// Held back, because the broker ends the connection when it gets them.
    parked: BTreeSet<u64>,
    /// The last unpromised letter on each topic that is not acknowledged.
    last: BTreeMap<Topic, u64>,
    /// What leaves here leaves there.
    gate: Gate,
}

#[derive(Clone, Copy, Debug)]
struct Flying {
    at: u64,
    since: Timestamp,
}

#[derive(Debug)]
struct Outgoing {
    envelope: Envelope,
    promise: Option<PromiseId>,
    strikes: u8,
}

/// A message that the broker does not seem to take.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    pub topic: Topic,
    pub len: usize,
}

impl Outbox {
    pub(super) fn new(gate: Gate) -> Self {
        Self { gate, ..Self::default() }
    }

    /// Takes a letter; false if it only repeats one that the broker does not have yet. One that is parked
    /// stays so, however often its machine says it: else it would end every connection.
    pub(super) fn push(&mut self, envelope: Envelope, promise: Option<PromiseId>) -> bool {
        if promise.is_none() {
            let last = self.last.get(&envelope.topic);
            let mut waiting = last.into_iter().chain(&self.parked);
            let repeats = |at: &u64| self.letters.get(at).is_some_and(|l| l.envelope == envelope);
            if waiting.any(repeats) {
                self.gate.leave(&envelope);
                return false;
            }
            self.last.insert(envelope.topic.clone(), self.end);
        }
        self.letters.insert(self.end, Outgoing { envelope, promise, strikes: 0 });
        self.end += 1;
        true
    }

    /// The next letter to hand over, if there is room for it.
    pub(super) fn hand_over(&mut self) -> Option<(Topic, Bytes)> {
        let (&at, letter) =
            self.letters.range(self.cursor..).find(|(at, _)| !self.parked.contains(at))?;
        let len = letter.envelope.payload.len();
        let under_way = self.handed.len() + self.flying.len();
        if under_way >= FLYING_MAX || (under_way > 0 && self.flying_bytes + len > FLYING_BYTES_MAX)
        {
            return None;
        }
        let Envelope { topic, payload } = letter.envelope.clone();
        self.cursor = at + 1;
        self.handed.push_back(at);
        self.flying_bytes += len;
        Some((topic, payload))
    }

    /// The letter that was handed over first has got its packet id.
    pub(super) fn sent(&mut self, pkid: u16, now: Timestamp) {
        if let Some(at) = self.handed.pop_front() {
            self.flying.insert(pkid, Flying { at, since: now });
        }
    }

    /// Whether a letter has waited longer for its acknowledgement: some brokers swallow what is too
    /// large for them, without a word.
    pub(super) fn is_unanswered(&self, now: Timestamp, longest: Duration) -> bool {
        self.flying.values().any(|flying| now.since(flying.since) > longest)
    }

    /// The broker has it. The outer option is empty for a packet id that is not ours.
    pub(super) fn acknowledged(&mut self, pkid: u16) -> Option<Option<PromiseId>> {
        let Flying { at, .. } = self.flying.remove(&pkid)?;
        let letter = self.letters.remove(&at)?;
        if self.last.get(&letter.envelope.topic) == Some(&at) {
            self.last.remove(&letter.envelope.topic);
        }
        self.flying_bytes -= letter.envelope.payload.len();
        self.gate.leave(&letter.envelope);
        Some(letter.promise)
    }

    /// The connection is gone: all that was under way is to be sent again. A letter that was
    /// under way in too many lost connections is parked; when it is tried again, one is enough.
    pub(super) fn lost(&mut self) -> Option<Suspect> {
        let flying = std::mem::take(&mut self.flying).into_values().map(|flying| flying.at);
        let under_way: Vec<u64> = self.handed.drain(..).chain(flying).collect();
        self.cursor = 0;
        self.flying_bytes = 0;
        let len = |at: &u64| self.letters.get(at).map_or(0, |l| l.envelope.payload.len());
        let at = under_way.into_iter().max_by_key(len)?;
        let letter = self.letters.get_mut(&at)?;
        if letter.envelope.payload.len() < SUSPECT_BYTES {
            return None;
        }
        letter.strikes += 1;
        if letter.strikes < STRIKES_MAX {
            return None;
        }
        letter.strikes = STRIKES_MAX - 1;
        let topic = letter.envelope.topic.clone();
        let len = letter.envelope.payload.len();
        self.parked.insert(at);
        Some(Suspect { topic, len })
    }

    /// Gives what was parked another chance, behind everything else.
    pub(super) fn unpark(&mut self) {
        for at in std::mem::take(&mut self.parked) {
            if let Some(letter) = self.letters.remove(&at) {
                if let Some(last) =
                    self.last.get_mut(&letter.envelope.topic).filter(|it| **it == at)
                {
                    *last = self.end;
                }
                self.letters.insert(self.end, letter);
                self.end += 1;
            }
        }
    }

    /// Whether nothing is left that could be sent.
    pub(super) fn is_done(&self) -> bool {
        self.letters.len() == self.parked.len()
    }
}

#[cfg(test)]
mod tests {
    use protocol::ModelLine;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1);

    fn letter(text: &str) -> Envelope {
        Envelope { topic: Topic::PropletAlive, payload: text.to_owned().into() }
    }

    fn drain(outbox: &mut Outbox) -> Vec<Bytes> {
        std::iter::from_fn(|| outbox.hand_over()).map(|(_, payload)| payload).collect()
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_in_order() {
        let mut outbox = Outbox::default();
        for text in ["a", "b", "c"] {
            assert!(outbox.push(letter(text), Some(PromiseId(1))));
        }
        assert_eq!(drain(&mut outbox), ["a", "b", "c"]);
        outbox.sent(7, NOW);
        outbox.sent(8, NOW);
        assert_eq!(outbox.acknowledged(8), Some(Some(PromiseId(1))));
        assert_eq!(outbox.acknowledged(8), None);

        assert_eq!(outbox.lost(), None);

        assert_eq!(outbox.acknowledged(7), None, "a packet id of an earlier connection");
        assert_eq!(drain(&mut outbox), ["a", "c"]);
        outbox.sent(1, NOW);
        outbox.sent(2, NOW);
        assert!(outbox.acknowledged(1).is_some() && outbox.acknowledged(2).is_some());
        assert!(outbox.is_done());
    }

    #[test]
    fn an_unpromised_repetition_of_what_the_broker_does_not_have_yet_is_swallowed() {
        let mut outbox = Outbox::default();
        assert!(outbox.push(letter("a"), None));
        assert!(!outbox.push(letter("a"), None));
        assert!(outbox.push(letter("b"), None));
        assert!(outbox.push(letter("a"), None));
        assert!(outbox.push(letter("a"), Some(PromiseId(1))));
        assert_eq!(drain(&mut outbox), ["a", "b", "a", "a"]);
        assert!(!outbox.push(letter("a"), None), "still under way");
        for pkid in 1..=4 {
            outbox.sent(pkid, NOW);
            assert!(outbox.acknowledged(pkid).is_some());
        }
        assert!(outbox.push(letter("a"), None));
    }

    #[test]
    fn a_letter_that_is_never_acknowledged_is_noticed_however_many_others_are() {
        let mut outbox = Outbox::default();
        outbox.push(letter("swallowed"), None);
        outbox.push(letter("fine"), None);
        drain(&mut outbox);
        outbox.sent(1, NOW);
        let longest = Duration::from_secs(1);
        let later = NOW + longest;
        outbox.sent(2, later);
        assert!(outbox.acknowledged(2).is_some());
        assert!(!outbox.is_unanswered(later, longest));
        let late = later + Duration::from_micros(1);
        assert!(outbox.is_unanswered(late, longest));
        outbox.lost();
        assert!(!outbox.is_unanswered(late, longest), "it is to be sent again");
    }

    #[test]
    fn the_window_is_bounded_by_messages_and_by_bytes() {
        let mut outbox = Outbox::default();
        for n in 0..FLYING_MAX + 1 {
            outbox.push(letter(&n.to_string()), None);
        }
        assert_eq!(drain(&mut outbox).len(), FLYING_MAX);

        let mut outbox = Outbox::default();
        let huge = Envelope {
            topic: Topic::ModelPublish { line: ModelLine::default() },
            payload: vec![0; FLYING_BYTES_MAX + 1].into(),
        };
        outbox.push(huge, None);
        outbox.push(letter("behind"), None);
        assert_eq!(drain(&mut outbox).len(), 1, "alone");
        outbox.sent(1, NOW);
        assert!(outbox.acknowledged(1).is_some());
        assert_eq!(drain(&mut outbox), ["behind"]);
    }

    #[test]
    fn a_message_that_ends_every_connection_is_parked_however_often_it_is_said() {
        for promise in [None, Some(PromiseId(1))] {
            let mut outbox = Outbox::default();
            let poison = Envelope {
                topic: Topic::ModelPublish { line: ModelLine::default() },
                payload: vec![0; SUSPECT_BYTES].into(),
            };
            outbox.push(poison.clone(), promise);
            outbox.push(letter("innocent"), None);
            let suspect = Suspect {
                topic: Topic::ModelPublish { line: ModelLine::default() },
                len: SUSPECT_BYTES,
            };
            let mut suspects = vec![];
            for _ in 0..STRIKES_MAX {
                assert_eq!(drain(&mut outbox).len(), 2);
                suspects.extend(outbox.lost());
            }
            assert_eq!(suspects, [suspect]);
            assert!(!outbox.push(poison.clone(), None), "its machine says it again");
            assert_eq!(drain(&mut outbox), ["innocent"]);
            outbox.sent(1, NOW);
            assert!(outbox.acknowledged(1).is_some());
            assert!(outbox.is_done());

            outbox.unpark();
            assert_eq!(drain(&mut outbox), std::slice::from_ref(&poison.payload));
            assert!(outbox.lost().is_some(), "it has had its chances");
            assert!(outbox.is_done() && drain(&mut outbox).is_empty());
            outbox.unpark();
            assert_eq!(drain(&mut outbox).len(), 1);
            outbox.sent(1, NOW);
            assert_eq!(outbox.acknowledged(1), Some(promise), "the broker has changed its mind");
        }
    }
}
