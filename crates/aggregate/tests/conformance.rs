//! What every strategy must do, run over the list of strategies.

#![allow(clippy::unwrap_used, reason = "tests")]

use aggregate::{
    AggregateError, Aggregator, Batch, NUM_SAMPLES_MAX, STRATEGIES, Strategy, Update, find, run,
};
use proptest::{
    num::f64::{NORMAL, SUBNORMAL, ZERO},
    prelude::*,
    sample::Index,
    strategy::Strategy as Generator,
};

type Owned = (Vec<f64>, u64);

#[test]
fn names_are_unique_and_found() {
    each(|strategy| {
        assert!(!strategy.summary.is_empty());
        let same = STRATEGIES.iter().filter(|other| other.name == strategy.name).count();
        assert_eq!(same, 1, "{strategy:?} is listed {same} times");
        assert_eq!(find(strategy.name).unwrap().summary, strategy.summary);
    });
    assert!(find("no such strategy").is_none());
}

#[test]
fn equal_updates_are_a_fixed_point() {
    each(|strategy| {
        let weights = [0.5, -1.0, 0.1, 0.0, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324];
        let updates = [1, 7, 3].map(|num_samples| Update { weights: &weights, num_samples });
        assert_eq!(run(&*(strategy.build)(), &updates).unwrap(), weights, "{strategy:?}");
    });
}

#[test]
fn bad_input_is_refused_before_any_strategy_sees_it() {
    each(|strategy| {
        let run = |updates: &[Update<'_>]| run(&*(strategy.build)(), updates).unwrap_err();
        let good = update(&[1.0, 2.0], 1);
        assert_eq!(run(&[]), AggregateError::Empty);
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let poison = [0.0, bad];
            let error = run(&[good, update(&poison, 1)]);
            assert_eq!(error, AggregateError::NotFinite { index: 1 });
        }
        let short = run(&[good, good, update(&[1.0], 1)]);
        assert_eq!(short, AggregateError::Shape { index: 2, found: 1, expected: 2 });
        let none = run(&[good, update(&[1.0, 2.0], 0)]);
        assert_eq!(none, AggregateError::ZeroSamples { index: 1 });
        let found = NUM_SAMPLES_MAX + 1;
        let boast = run(&[update(&[1.0, 2.0], found), good]);
        assert_eq!(boast, AggregateError::TooManySamples { index: 0, found });
    });
}

#[test]
fn samples_that_overflow_their_sum_are_refused() {
    each(|strategy| {
        let updates = vec![Update { weights: &[1.0], num_samples: NUM_SAMPLES_MAX }; 2048];
        let run = |updates| run(&*(strategy.build)(), updates);
        assert_eq!(run(&updates[1..]).unwrap(), [1.0]);
        assert_eq!(run(&updates), Err(AggregateError::SamplesOverflow { updates: 2048 }));
    });
}

#[test]
fn updates_without_weights_give_none() {
    each(|strategy| {
        let updates = [Update { weights: &[], num_samples: 1 }];
        assert_eq!(run(&*(strategy.build)(), &updates).unwrap(), []);
    });
}

/// A strategy that overflows ends as an error, whoever wrote it.
#[test]
fn a_result_that_is_not_finite_is_an_error() {
    struct Sum;
    impl Aggregator for Sum {
        fn aggregate(&self, batch: &Batch<'_>) -> Vec<f64> {
            let weights = |i: usize| batch.updates().iter().map(move |u| u.weights[i]);
            (0..batch.len()).map(|i| weights(i).sum()).collect()
        }
    }
    let updates = [Update { weights: &[1.0, f64::MAX], num_samples: 1 }; 2];
    assert_eq!(run(&Sum, &updates), Err(AggregateError::ResultNotFinite { coordinate: 1 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_order_of_the_updates_changes_a_bit(
        updates in any_updates(),
        swaps in prop::collection::vec((any::<Index>(), any::<Index>()), 0..32),
    ) {
        let mut shuffled = updates.clone();
        for (a, b) in swaps {
            shuffled.swap(a.index(updates.len()), b.index(updates.len()));
        }
        each(|strategy| {
            let (bits, other) = (bits(strategy, &updates), bits(strategy, &shuffled));
            assert_eq!(bits, other, "{strategy:?}");
        });
    }

    #[test]
    fn no_weight_leaves_the_range_of_its_updates(updates in any_updates()) {
        each(|strategy| {
            let out = run(&*(strategy.build)(), &borrowed(&updates)).unwrap();
            for (i, weight) in out.iter().enumerate() {
                let low = updates.iter().map(|u| u.0[i]).fold(f64::INFINITY, f64::min);
                let high = updates.iter().map(|u| u.0[i]).fold(f64::NEG_INFINITY, f64::max);
                assert!((low..=high).contains(weight), "{strategy:?}: {low} {weight} {high}");
            }
        });
    }
}

fn update(weights: &[f64], num_samples: u64) -> Update<'_> {
    Update { weights, num_samples }
}

/// Any finite numbers at all, beside such as a model has; counts from 1 to the most allowed.
fn any_updates() -> impl Generator<Value = Vec<Owned>> {
    let weight = prop_oneof![NORMAL | SUBNORMAL | ZERO, -10.0..10.0];
    let count = prop_oneof![1..1000_u64, 1..=NUM_SAMPLES_MAX];
    (1..5_usize).prop_flat_map(move |len| {
        let weights = prop::collection::vec(weight.clone(), len);
        prop::collection::vec((weights, count.clone()), 1..9)
    })
}

fn bits(strategy: &Strategy, updates: &[Owned]) -> Vec<u64> {
    let out = run(&*(strategy.build)(), &borrowed(updates)).unwrap();
    out.into_iter().map(f64::to_bits).collect()
}

fn borrowed(updates: &[Owned]) -> Vec<Update<'_>> {
    updates.iter().map(|(weights, n)| Update { weights, num_samples: *n }).collect()
}

fn each(test: impl Fn(&Strategy)) {
    assert!(!STRATEGIES.is_empty());
    STRATEGIES.iter().for_each(test);
}
