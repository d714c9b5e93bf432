//! What every strategy must do, run over the list of strategies.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use aggregate::{
    AggregateError, Facts, Guard, Kind, Made, NUM_SAMPLES_MAX, NormBound, Out, RunError,
    STRATEGIES, SettingError, Settings, Strategy, Update, Work, aggregate_in_memory, find, run,
};
use proptest::{
    num::f64::{NORMAL, SUBNORMAL, ZERO},
    prelude::*,
    sample::Index,
    strategy::Strategy as Generator,
};

mod fleet;

use fleet::{Fleet, Number};

/// Strategies whose result lies between the least and the greatest update in each place, and that
/// need nothing but updates.
const WITHIN: &[&str] = &[
    "fedavg",
    "fedprox",
    "fedmedian",
    "trimmed_mean",
    "geometric_median",
    "krum",
    "multikrum",
    "bulyan",
];

#[test]
fn names_are_unique_and_found() {
    each(|strategy| {
        assert!(!strategy.summary.is_empty());
        let same = STRATEGIES.iter().filter(|other| other.name == strategy.name).count();
        assert_eq!(same, 1, "{strategy:?} is listed {same} times");
        assert_eq!(find(strategy.name).unwrap().summary, strategy.summary);
    });
    assert!(find("no such strategy").is_none());
    assert!(WITHIN.iter().all(|name| find(name).is_some()));
}

#[test]
fn settings_are_checked_by_name_range_and_kind() {
    each(|strategy| {
        let check = |name: &str, value: f64| {
            strategy.configured(&BTreeMap::from([(name.to_owned(), value)])).map(drop)
        };
        let unknown = check("no_such_setting", 1.0).unwrap_err();
        assert!(matches!(unknown, SettingError::Unknown { .. }), "{unknown}");
        for it in strategy.settings {
            assert!(!it.summary.is_empty());
            assert!((it.min..=it.max).contains(&it.default), "{strategy:?} {it:?}");
            for bad in [it.min - 1.0, it.max * 2.0 + 1.0, f64::NAN, f64::INFINITY] {
                let error = check(it.name, bad).unwrap_err();
                assert!(matches!(error, SettingError::OutOfRange { .. }), "{error}");
            }
            assert_eq!(check(it.name, it.max), Ok(()));
            if it.kind == Kind::Whole {
                let error = check(it.name, it.min + 0.5).unwrap_err();
                assert!(matches!(error, SettingError::NotWhole { .. }), "{error}");
            }
        }
        let all = Settings::check(strategy.settings, &BTreeMap::new()).unwrap();
        assert_eq!(all, Settings::defaults(strategy.settings));
    });
}

#[test]
fn a_state_has_the_vectors_that_are_listed() {
    let fleet = Fleet::<f32>::new(5, 40, 1);
    each(|strategy| {
        let made = fleet.run(strategy, &Work::default()).unwrap();
        let names: Vec<&str> = made.state.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, strategy.vectors, "{strategy:?}");
        assert!(made.state.iter().all(|(_, vector)| vector.len() == 40));
    });
}

#[test]
fn without_what_it_needs_a_strategy_refuses() {
    let fleet = Fleet::<f64>::new(5, 3, 1);
    let updates: Vec<Update<'_>> =
        fleet.updates.iter().map(|weights| Update { weights, num_samples: 3 }).collect();
    each(|strategy| {
        let result = run(&*(strategy.build)(), &updates);
        if WITHIN.contains(&strategy.name) {
            assert_eq!(result.unwrap().len(), 3);
        } else {
            let error = result.unwrap_err();
            assert!(matches!(error, AggregateError::Needs { .. }), "{strategy:?}: {error}");
        }
    });
    for bad in [f64::NAN, -1.0, f64::INFINITY] {
        let mut fleet = fleet.clone();
        fleet.facts[2].loss = Some(bad);
        let error = fleet.run(find("qfedavg").unwrap(), &Work::default()).unwrap_err();
        let expected = AggregateError::Fact { index: 2, what: "loss", found: bad.to_string() };
        assert!(matches!(error, RunError::Refused(found) if found == expected));
    }
    let mut fleet = fleet;
    fleet.facts[1].steps = Some(0);
    let error = fleet.run(find("fednova").unwrap(), &Work::default()).unwrap_err();
    assert!(matches!(error, RunError::Refused(AggregateError::Fact { index: 1, .. })));
}

#[test]
fn equal_updates_are_a_fixed_point() {
    within(|strategy| {
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

/// Also where nobody looked at the updates first: whatever is summed, sorted or compared is seen.
#[test]
fn what_is_not_finite_never_reaches_a_model() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (at, block) in [(0, 64), (1999, 64), (1030, 1 << 16)] {
            let mut fleet = Fleet::<f32>::new(7, 2000, 2);
            fleet.updates[4][at] = bad;
            each(|strategy| {
                let error = fleet.run(strategy, &Work { threads: 2, block }).unwrap_err();
                let refused =
                    matches!(error, RunError::Refused(AggregateError::NotFinite { index: 4 }));
                assert!(refused, "{strategy:?}: {error}");
            });
        }
    }
}

#[test]
fn samples_that_overflow_their_sum_are_refused() {
    within(|strategy| {
        let updates = vec![Update { weights: &[1.0], num_samples: NUM_SAMPLES_MAX }; 2048];
        let run = |updates| run(&*(strategy.build)(), updates);
        if strategy.name == "fedavg" {
            assert_eq!(run(&updates[1..]).unwrap(), [1.0]);
        }
        assert_eq!(run(&updates), Err(AggregateError::SamplesOverflow { updates: 2048 }));
    });
}

#[test]
fn updates_without_weights_give_none() {
    within(|strategy| {
        let updates = [Update { weights: &[], num_samples: 1 }];
        assert_eq!(run(&*(strategy.build)(), &updates).unwrap(), []);
    });
}

#[test]
fn facts_and_rows_have_to_agree() {
    let mut fleet = Fleet::<f32>::new(4, 10, 3);
    fleet.facts.push(Facts::new(1));
    each(|strategy| {
        let error = fleet.run(strategy, &Work::default()).unwrap_err();
        let counts = AggregateError::Facts { what: "facts", found: 5, updates: 4 };
        assert!(matches!(error, RunError::Refused(found) if found == counts));
    });
    fleet.facts.pop();
    let mut short = [0.0; 9];
    let aggregator = (find("fedavg").unwrap().build)();
    let result = fleet.with_round(|round| {
        let out = Out::Slices(vec![&mut short]);
        aggregate::aggregate(&*aggregator, &Guard::default(), round, &Work::default(), out)
    });
    let width = AggregateError::OutputWidth { found: 9, expected: 10 };
    assert!(matches!(result, Err(RunError::Refused(found)) if found == width));
}

/// One thread or many, small blocks or large ones: no bit of model or state tells.
#[test]
fn no_cut_of_the_work_changes_a_bit() {
    cuts::<f32>();
    cuts::<f64>();
}

fn cuts<T: Number>() {
    let fleet = Fleet::<T>::new(9, 40_000, 4);
    each(|strategy| {
        let whole = bits(fleet.run(strategy, &Work { threads: 1, block: 1 << 20 }).unwrap());
        for work in [Work { threads: 3, block: 1 }, Work { threads: 8, block: 5000 }] {
            assert!(bits(fleet.run(strategy, &work).unwrap()) == whole, "{strategy:?} {work:?}");
        }
    });
}

/// The order of the updates does not tell either, guard or no guard, ties or none.
#[test]
fn no_order_of_a_fleet_changes_a_bit() {
    orders::<f32>();
    orders::<f64>();
}

fn orders<T: Number>() {
    let mut fleet = Fleet::<T>::new(11, 3000, 5);
    // Some are equal, some are zero of either sign, some are far away.
    fleet.updates[3] = fleet.updates[8].clone();
    fleet.facts[3] = fleet.facts[8].clone();
    fleet.controls[3] = fleet.controls[8].clone();
    fleet.bases[3] = fleet.bases[8].clone();
    fleet.updates[5] = vec![T::of(0.0); 3000];
    fleet.updates[6] = vec![T::of(-0.0); 3000];
    fleet.updates[7] = vec![T::of(1e30); 3000];
    let guards = [
        Guard::default(),
        Guard { norm: NormBound::Clip { norm_max: 20.0 }, share_max: Some(0.2) },
        Guard { norm: NormBound::Reject { norm_max: 90.0 }, share_max: None },
    ];
    for guard in guards {
        fleet.guard = guard;
        let first: Vec<_> = STRATEGIES
            .iter()
            .map(|strategy| bits(fleet.run(strategy, &Work::threads(2)).unwrap()))
            .collect();
        let mut shuffled = fleet.clone();
        for turn in 1..5 {
            shuffled.permute(turn);
            for (strategy, first) in STRATEGIES.iter().zip(&first) {
                let other = bits(shuffled.run(strategy, &Work::threads(2)).unwrap());
                assert!(other == *first, "{strategy:?} {guard:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_order_of_the_updates_changes_a_bit(
        updates in any_updates(),
        swaps in prop::collection::vec((any::<Index>(), any::<Index>()), 0..32),
    ) {
        let mut shuffled = updates.clone();
        for (a, b) in swaps {
            shuffled.swap(a.index(updates.len()), b.index(updates.len()));
        }
        within(|strategy| {
            let all = |updates: &[Owned]| -> Vec<u64> {
                let out = run(&*(strategy.build)(), &borrowed(updates)).unwrap();
                out.into_iter().map(f64::to_bits).collect()
            };
            assert_eq!(all(&updates), all(&shuffled), "{strategy:?}");
        });
    }

    #[test]
    fn no_weight_leaves_the_range_of_its_updates(updates in any_updates()) {
        within(|strategy| {
            let out = run(&*(strategy.build)(), &borrowed(&updates)).unwrap();
            for (i, weight) in out.iter().enumerate() {
                let low = updates.iter().map(|u| u.0[i]).fold(f64::INFINITY, f64::min);
                let high = updates.iter().map(|u| u.0[i]).fold(f64::NEG_INFINITY, f64::max);
                assert!((low..=high).contains(weight), "{strategy:?}: {low} {weight} {high}");
            }
        });
    }
}

type Owned = (Vec<f64>, u64);

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

fn bits<T: Number>(made: Made<T>) -> Vec<u64> {
    let state = made.state.into_iter().flat_map(|(_, vector)| vector);
    made.weights.into_iter().chain(state).map(|value| value.to_f64().to_bits()).collect()
}

fn borrowed(updates: &[Owned]) -> Vec<Update<'_>> {
    updates.iter().map(|(weights, n)| Update { weights, num_samples: *n }).collect()
}

fn each(test: impl Fn(&Strategy)) {
    assert!(!STRATEGIES.is_empty());
    STRATEGIES.iter().for_each(test);
}

fn within(test: impl Fn(&Strategy)) {
    WITHIN.iter().for_each(|name| test(find(name).unwrap()));
}

impl<T: Number> Fleet<T> {
    fn run(&self, strategy: &Strategy, work: &Work) -> Result<Made<T>, RunError> {
        let aggregator = (strategy.build)();
        self.with_round(|round| aggregate_in_memory(&*aggregator, &self.guard, round, work))
    }
}
