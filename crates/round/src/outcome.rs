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
    pub(crate) counted: Members,
    /// Of the model that it made.
    pub(crate) digest: Option<Digest>,
}

/// Digests by proplet, in order; in a list, since there can be a hundred thousand, and they are
/// seldom added to.
#[derive(Clone, Debug)]
pub(crate) struct Members(Vec<(PropletId, Digest)>);

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

impl Members {
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, proplet: &PropletId) -> Option<&Digest> {
        let place = self.0.binary_search_by(|(known, _)| known.cmp(proplet)).ok()?;
        Some(&self.0[place].1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(PropletId, Digest)> {
        self.0.iter()
    }

    /// Those that are known already get the new digest.
    fn extend(&mut self, more: impl Iterator<Item = (PropletId, Digest)>) {
        let all: BTreeMap<_, _> = std::mem::take(&mut self.0).into_iter().chain(more).collect();
        self.0 = all.into_iter().collect();
    }
}

/// In order, and as many as it says.
impl<I: ExactSizeIterator<Item = (PropletId, Digest)>> From<I> for Members {
    fn from(members: I) -> Self {
        let mut list = Vec::with_capacity(members.len());
        list.extend(members);
        debug_assert!(list.is_sorted_by(|(one, _), (next, _)| one < next), "maps are in order");
        Self(list)
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

    /// Makes room for the outcome of a round with so many members: the rounds that have to be
    /// forgotten for it. Beside a round of the largest kind one more of these is remembered.
    pub(crate) fn make_room(&mut self, members: usize) -> Vec<RoundId> {
        let mut forgotten = vec![];
        while self.by_ordinal.len() >= OUTCOMES_MAX || self.members + members > OUTCOME_MEMBERS_MAX
        {
            let Some((_, round)) = self.by_ordinal.pop_first() else { break };
            if let Some((_, outcome)) = self.by_round.remove(&round) {
                self.members -= outcome.counted.len();
            }
            forgotten.push(round);
        }
        forgotten
    }

    /// Takes the newest outcome, for which there is room.
    pub(crate) fn push(&mut self, outcome: Outcome) {
        self.put(self.ordinal(), outcome);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use protocol::{FailReason, Timestamp};

    use super::*;

    const LARGE: usize = OUTCOME_MEMBERS_MAX / 2;

    fn ends(outcomes: &mut Outcomes, name: &str, members: usize) -> Vec<RoundId> {
        let forgotten = outcomes.make_room(members);
        let digest = Digest::of(b"update");
        let counted = (0..members).map(|n| (format!("p-{n:06}").parse().unwrap(), digest));
        let failed = RoundFailed {
            round_id: name.parse().unwrap(),
            reason: FailReason::Aggregation,
            num_updates: members,
            k_of_n: 1,
            failed_at: Timestamp::ZERO,
            error: None,
            outstanding: BTreeSet::new(),
        };
        let ending = Ending::Failed(failed);
        outcomes.push(Outcome { start: None, ending, counted: counted.into(), digest: None });
        forgotten
    }

    #[test]
    fn the_oldest_make_room_and_a_small_round_pushes_out_no_large_one() {
        let round = |name: &str| name.parse::<RoundId>().unwrap();
        let mut outcomes = Outcomes::default();
        assert!(ends(&mut outcomes, "small-1", 3).is_empty());
        assert_eq!(ends(&mut outcomes, "large-1", LARGE), []);
        assert_eq!(ends(&mut outcomes, "large-2", LARGE), [round("small-1")]);
        assert_eq!(ends(&mut outcomes, "small-2", 1), [round("large-1")]);
        assert!(ends(&mut outcomes, "small-3", 5).is_empty());
        assert_eq!(outcomes.members, LARGE + 6);
        assert!(outcomes.get(&round("large-2")).is_some());
        assert_eq!(ends(&mut outcomes, "large-3", LARGE), [round("large-2")]);
        let kept: Vec<_> = outcomes.newest_first().map(|it| it.round().to_string()).collect();
        assert_eq!(kept, ["large-3", "small-3", "small-2"]);
        let known = &outcomes.get(&round("small-3")).unwrap().counted;
        let [first, next] = ["p-000004", "p-000005"].map(|name| name.parse().unwrap());
        assert!(known.get(&first).is_some() && known.get(&next).is_none());
    }
}
