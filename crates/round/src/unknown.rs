//! Rounds that are spoken of before anybody has started them.
//!
//! The start and what follows from it come from different peers, so they may overtake each other:
//! what is heard early waits for a grace, without a verdict. All of this may be lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{PropletId, RoundId, Timestamp};

const ROUNDS_MAX: usize = 256;
/// Names held over all of these rounds.
const NAMES_MAX: usize = 200_000;

/// What is waiting.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unknown {
    rounds: BTreeMap<RoundId, Waiting>,
    names: usize,
}

/// What was heard of one round.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    since: Timestamp,
    /// Whose updates came.
    pub(crate) senders: BTreeSet<PropletId>,
    /// Who will not contribute.
    pub(crate) absent: BTreeSet<PropletId>,
}

impl Unknown {
    pub(crate) fn sent(&mut self, round: &RoundId, proplet: PropletId, now: Timestamp) {
        let room = self.names < NAMES_MAX;
        let waiting = self.waiting(round, now);
        if room && waiting.senders.insert(proplet) {
            self.names += 1;
        }
    }

    pub(crate) fn absent(&mut self, round: &RoundId, proplet: PropletId, now: Timestamp) {
        let room = self.names < NAMES_MAX;
        let waiting = self.waiting(round, now);
        if room && waiting.absent.insert(proplet) {
            self.names += 1;
        }
    }

    /// Takes back what was heard of a round, now that it is known.
    pub(crate) fn take(&mut self, round: &RoundId) -> Option<Waiting> {
        let waiting = self.rounds.remove(round)?;
        self.names -= waiting.names();
        Some(waiting)
    }

    /// When the oldest has waited long enough.
    pub(crate) fn deadline(&self, grace: Duration) -> Option<Timestamp> {
        self.rounds.values().map(|waiting| waiting.since + grace).min()
    }

    /// Those that have waited long enough.
    pub(crate) fn expired(&mut self, grace: Duration, now: Timestamp) -> Vec<(RoundId, Waiting)> {
        let due: Vec<RoundId> = self
            .rounds
            .iter()
            .filter(|(_, waiting)| waiting.since + grace <= now)
            .map(|(round, _)| round.clone())
            .collect();
        due.into_iter().filter_map(|round| self.take(&round).map(|w| (round, w))).collect()
    }

    /// The place of one round; the one that waits longest makes room, and its senders ask again.
    fn waiting(&mut self, round: &RoundId, now: Timestamp) -> &mut Waiting {
        if !self.rounds.contains_key(round) && self.rounds.len() >= ROUNDS_MAX {
            let oldest = self.rounds.iter().min_by_key(|(_, waiting)| waiting.since);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                self.take(&oldest);
            }
        }
        self.rounds.entry(round.clone()).or_insert_with(|| Waiting {
            since: now,
            senders: BTreeSet::new(),
            absent: BTreeSet::new(),
        })
    }
}

impl Waiting {
    fn names(&self) -> usize {
        self.senders.len() + self.absent.len()
    }
}
