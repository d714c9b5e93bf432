//! Rounds that have ended: what came of them, and whose updates they counted, for those who ask
//! again. Bounded: the oldest are forgotten, and become unknown.

use std::collections::BTreeMap;

use protocol::{
    Digest, Envelope, Letter as _, PropletId, RoundId,
    message::{RoundComplete, RoundFailed},
};

use crate::rules::{OUTCOME_MEMBERS_MAX, OUTCOMES_MAX};

/// What is remembered of a round that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) start: Option<Digest>,
    pub(crate) ending: Ending,
    /// Fingerprints of what was counted.
    pub(crate) counted: BTreeMap<PropletId, Digest>,
    /// Of the model that it made.
    pub(crate) digest: Option<Digest>,
}

/// How a round ended.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    Complete(RoundComplete),
    Failed(RoundFailed),
}

/// Ended rounds in the order in which they ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcomes {
    by_round: BTreeMap<RoundId, (u64, Outcome)>,
    by_ordinal: BTreeMap<u64, RoundId>,
    members: usize,
}

impl Outcome {
    pub(crate) const fn round(&self) -> &RoundId {
        match &self.ending {
            Ending::Complete(complete) => &complete.round_id,
            Ending::Failed(failed) => &failed.round_id,
        }
    }

    /// What was said when it ended.
    pub(crate) fn seal(&self) -> Envelope {
        match &self.ending {
            Ending::Complete(complete) => complete.seal(),
            Ending::Failed(failed) => failed.seal(),
        }
    }
}

impl Outcomes {
    pub(crate) fn restore(&mut self, outcomes: Vec<(u64, Outcome)>) {
        for (ordinal, outcome) in outcomes {
            self.put(ordinal, outcome);
        }
    }

    pub(crate) fn get(&self, round: &RoundId) -> Option<&Outcome> {
        self.by_round.get(round).map(|(_, outcome)| outcome)
    }

    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Outcome> {
        self.by_ordinal.values().rev().filter_map(|round| self.get(round))
    }

    /// The place that the next outcome takes.
    pub(crate) fn ordinal(&self) -> u64 {
        self.by_ordinal.last_key_value().map_or(0, |(last, _)| last + 1)
    }

    /// Takes the newest outcome; hands out those that have to be forgotten for it.
    pub(crate) fn push(&mut self, outcome: Outcome) -> Vec<RoundId> {
        self.put(self.ordinal(), outcome);
        let mut forgotten = vec![];
        while self.by_ordinal.len() > OUTCOMES_MAX
            || (self.members > OUTCOME_MEMBERS_MAX && self.by_ordinal.len() > 1)
        {
            let Some((_, round)) = self.by_ordinal.pop_first() else { break };
            if let Some((_, outcome)) = self.by_round.remove(&round) {
                self.members -= outcome.counted.len();
            }
            forgotten.push(round);
        }
        forgotten
    }

    /// Adds to what was counted; what is remembered now, if that is anything new.
    pub(crate) fn amend(
        &mut self,
        round: &RoundId,
        counted: impl Iterator<Item = (PropletId, Digest)>,
    ) -> Option<(u64, &Outcome)> {
        let (ordinal, outcome) = self.by_round.get_mut(round)?;
        let before = outcome.counted.len();
        outcome.counted.extend(counted);
        let added = outcome.counted.len() - before;
        self.members += added;
        (added > 0).then_some((*ordinal, &*outcome))
    }

    fn put(&mut self, ordinal: u64, outcome: Outcome) {
        self.members += outcome.counted.len();
        self.by_ordinal.insert(ordinal, outcome.round().clone());
        self.by_round.insert(outcome.round().clone(), (ordinal, outcome));
    }
}
