//! What every method has to keep, over the list; and what each is for.

use std::collections::BTreeSet;

use proptest::prelude::*;
use protocol::PropletId;

use super::{Candidate, Draw, SELECTIONS, find};

fn ids(count: usize) -> Vec<PropletId> {
    (0..count).map(|n| format!("p{n:05}").parse().unwrap()).collect()
}

fn candidates(ids: &[PropletId]) -> Vec<Candidate<'_>> {
    let new = |id| Candidate { id, asked: 0, samples: 1.0, utility: None, counted_in: None };
    ids.iter().map(new).collect()
}

proptest! {
    #[test]
    fn every_method_chooses_exactly_as_many_as_are_wanted_and_the_same_ones_again(
        count in 1..40_usize,
        wanted in 0.0..1.0_f64,
        seed: u64,
        round in 0..5000_u64,
        known in prop::collection::vec(prop::option::of(0.0..1e9), 40),
        asked in prop::collection::vec(0..100_u64, 40),
    ) {
        let ids = ids(count);
        let mut candidates = candidates(&ids);
        for (index, candidate) in candidates.iter_mut().enumerate() {
            candidate.utility = known[index];
            candidate.counted_in = known[index].map(|_| round / 2);
            candidate.asked = asked[index];
            candidate.samples = known[index].unwrap_or(0.0);
        }
        let draw = Draw { candidates, seed, round };
        let wanted = (count as f64 * wanted).ceil() as usize;
        for method in SELECTIONS {
            let chosen = (method.choose)(&draw, wanted);
            let different: BTreeSet<usize> = chosen.iter().copied().collect();
            prop_assert_eq!(different.len(), wanted, "{}", method.name);
            prop_assert!(different.iter().all(|index| *index < count));
            prop_assert_eq!(&(method.choose)(&draw, wanted), &chosen);
        }
    }
}

/// How often each of `count` is chosen over some rounds, when `wanted` are asked in each.
fn tally(method: &str, count: usize, wanted: usize, samples: impl Fn(usize) -> f64) -> Vec<u64> {
    let ids = ids(count);
    let mut asked = vec![0; count];
    for round in 0..1000 {
        let mut candidates = candidates(&ids);
        for (index, candidate) in candidates.iter_mut().enumerate() {
            candidate.asked = asked[index];
            candidate.samples = samples(index);
        }
        let draw = Draw { candidates, seed: 7, round };
        for index in (find(method).unwrap().choose)(&draw, wanted) {
            asked[index] += 1;
        }
    }
    asked
}

#[test]
fn nobody_is_left_out() {
    assert!(tally("all", 10, 3, |_| 1.0).iter().all(|count| *count == 300));
    let random = tally("random", 10, 3, |_| 1.0);
    // Five standard deviations of a binomial of 1000 at 0.3.
    assert!(random.iter().all(|count| count.abs_diff(300) < 75), "{random:?}");
}

#[test]
fn much_data_is_chosen_in_proportion() {
    let tally = tally("weighted", 4, 1, |index| [1.0, 2.0, 3.0, 4.0][index]);
    for (count, expected) in tally.iter().zip([100, 200, 300, 400]) {
        assert!(count.abs_diff(expected) < 80, "{tally:?}");
    }
}

#[test]
fn utility_decides_among_the_known() {
    let ids = ids(10);
    let mut candidates = candidates(&ids);
    for (index, candidate) in candidates.iter_mut().enumerate() {
        candidate.utility = Some(index as f64);
        candidate.counted_in = Some(9);
    }
    let draw = Draw { candidates, seed: 1, round: 10 };
    let chosen: BTreeSet<usize> = (find("oort").unwrap().choose)(&draw, 3).into_iter().collect();
    assert_eq!(chosen, BTreeSet::from([7, 8, 9]));
}
