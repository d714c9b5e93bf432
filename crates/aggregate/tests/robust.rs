//! How many hostile updates each robust strategy bears, and that the mean bears none.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use aggregate::{
    AggregateError, Facts, Guard, NormBound, Round, RunError, Slices, Work, aggregate_in_memory,
    aggregate_rest, find,
};

mod fleet;

use fleet::Fleet;

const COUNT: usize = 23;
const WIDTH: usize = 1500;

/// Settings by name.
type Given = &'static [(&'static str, f64)];
/// A hostile weight, made of the base's, an honest one, and its place.
type Poison = fn(f32, f32, usize) -> f32;

/// The strategy, the settings that make it bear the most, and how many of 23 it then bears.
const BREAKDOWN: &[(&str, Given, usize)] = &[
    ("fedmedian", &[], 11),
    ("trimmed_mean", &[("trim_share", 0.48)], 11),
    ("geometric_median", &[("iterations", 20.0)], 11),
    ("krum", &[("byzantine_share", 0.5)], 10),
    ("multikrum", &[("byzantine_share", 0.5)], 10),
    ("bulyan", &[("byzantine_share", 0.5)], 5),
];

/// What the hostile send, made of what an honest one would have.
const ATTACKS: &[(&str, Poison)] = &[
    ("the greatest number", |_, _, _| f32::MAX),
    ("greatest numbers of both signs", |_, _, at| if at % 2 == 0 { f32::MAX } else { f32::MIN }),
    ("the sign flipped, five times", |base, w, _| base - 5.0 * (w - base)),
    ("a constant", |_, _, _| 100.0),
    ("far, all together", |base, _, _| base + 1e6),
];

#[test]
fn robust_strategies_bear_what_their_papers_say() {
    for (name, settings, bears) in BREAKDOWN {
        for (attack, poison) in ATTACKS {
            let fleet = attacked(*bears, *poison);
            let far = distance(&fleet, name, settings);
            assert!(far < 12.0, "{name} is {far} away after: {attack}");
        }
    }
}

#[test]
fn one_hostile_update_moves_a_mean_anywhere() {
    for name in ["fedavg", "fedprox"] {
        assert!(distance(&attacked(1, |_, _, _| f32::MAX), name, &[]) > 1e30);
    }
}

#[test]
fn beyond_its_breakdown_point_a_median_follows_the_majority() {
    assert!(distance(&attacked(12, |_, _, _| 100.0), "fedmedian", &[]) > 1000.0);
}

#[test]
fn a_bound_on_the_norm_keeps_even_a_mean_near() {
    for norm in [NormBound::Clip { norm_max: 8.0 }, NormBound::Reject { norm_max: 8.0 }] {
        let mut fleet = attacked(2, |_, _, _| f32::MAX);
        fleet.guard.norm = norm;
        let far = distance(&fleet, "fedavg", &[]);
        assert!(far < 8.0, "{norm:?}: {far}");
        let made = run(&fleet, "fedavg", &[]).unwrap();
        let turned = match norm {
            NormBound::Off | NormBound::Clip { .. } => made.guarded.clipped,
            NormBound::Reject { .. } => made.guarded.rejected,
        };
        assert_eq!(turned, [COUNT - 2, COUNT - 1]);
    }
    let mut fleet = attacked(2, |_, w, _| w);
    fleet.guard.norm = NormBound::Reject { norm_max: 1e-6 };
    let error = run(&fleet, "fedavg", &[]).unwrap_err();
    assert!(matches!(error, RunError::Refused(AggregateError::Empty)));
    fleet.guard.norm = NormBound::Clip { norm_max: f64::NAN };
    assert!(matches!(
        run(&fleet, "fedavg", &[]).unwrap_err(),
        RunError::Refused(AggregateError::Setting(_))
    ));
}

/// One who claims all samples counts for no more than the cap lets him.
#[test]
fn a_cap_on_the_share_holds() {
    for (counts, share_max, most) in [
        (vec![10, 10, 10, 10, 1 << 50], 0.25, 0.25),
        (vec![1, 2, 3, 1 << 50, 1 << 51], 0.4, 0.4),
        (vec![100, 100, 100], 0.1, 1.0 / 3.0),
        (vec![1000, 900, 800, 700], 0.5, 0.3),
    ] {
        let rows: Vec<Vec<f64>> = (0..counts.len())
            .map(|row| (0..counts.len()).map(|at| f64::from(u8::from(row == at))).collect())
            .collect();
        let views: Vec<&[f64]> = rows.iter().map(|row| &**row).collect();
        let rows = Slices::new(&views).unwrap();
        let facts: Vec<Facts> = counts.iter().map(|count| Facts::new(*count)).collect();
        let guard = Guard { norm: NormBound::Off, share_max: Some(share_max) };
        let aggregator = (find("fedavg").unwrap().build)();
        let round = Round::new(&rows, &facts);
        let made = aggregate_in_memory(&*aggregator, &guard, &round, &Work::default()).unwrap();
        let greatest = made.weights.iter().copied().fold(0.0, f64::max);
        assert!(greatest <= most + 1e-9, "{counts:?}: {:?}", made.weights);
        assert!(greatest > most * 0.7, "{counts:?}: {:?}", made.weights);
    }
}

fn attacked(hostile: usize, poison: Poison) -> Fleet<f32> {
    let mut fleet = Fleet::<f32>::new(COUNT, WIDTH, 6);
    for update in fleet.updates.iter_mut().rev().take(hostile) {
        for (at, (weight, base)) in update.iter_mut().zip(&fleet.base).enumerate() {
            *weight = poison(*base, *weight, at);
        }
    }
    fleet.facts.iter_mut().for_each(|facts| facts.num_samples = 10);
    fleet
}

/// How far the result is from the base; each honest update is about 3.4 from it.
fn distance(fleet: &Fleet<f32>, name: &str, settings: &[(&str, f64)]) -> f64 {
    let made = run(fleet, name, settings).unwrap();
    let pairs = made.weights.iter().zip(&fleet.base);
    pairs.map(|(w, x)| (f64::from(*w) - f64::from(*x)).powi(2)).sum::<f64>().sqrt()
}

fn run(
    fleet: &Fleet<f32>,
    name: &str,
    settings: &[(&str, f64)],
) -> Result<aggregate::Made<f32>, RunError> {
    let given: BTreeMap<String, f64> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let aggregator = find(name).unwrap().configured(&given).unwrap();
    fleet.with_round(|round| {
        aggregate_in_memory(&*aggregator, &fleet.guard, round, &Work::threads(2))
    })
}

#[test]
fn one_that_says_what_cannot_be_used_is_left_out_and_named() {
    let strategy = find("qfedavg").unwrap();
    let mut fleet = Fleet::<f32>::new(7, 40, 3);
    fleet.facts[4].loss = Some(f64::NAN);
    let run = |fleet: &Fleet<f32>| {
        let work = Work::default();
        fleet.with_round(|round| {
            aggregate_rest(round, &work, |part| {
                aggregate_in_memory(&*(strategy.build)(), &Guard::default(), part, &work)
            })
        })
    };
    let rest = run(&fleet).unwrap();
    assert_eq!((rest.unusable, rest.kept), (vec![4], vec![0, 1, 2, 3, 5, 6]));
    fleet.updates.remove(4);
    fleet.bases.remove(4);
    fleet.controls.remove(4);
    fleet.facts.remove(4);
    assert_eq!(run(&fleet).unwrap().made, rest.made, "the others make the model");
    fleet.facts.iter_mut().for_each(|facts| facts.loss = Some(-1.0));
    assert!(run(&fleet).is_err(), "of none there is no model");
}

#[test]
fn one_that_throws_the_model_out_of_its_range_is_left_out() {
    let strategy = find("fedavgm").unwrap();
    let told = BTreeMap::from([("server_lr".to_owned(), 20.0)]);
    let mut fleet = Fleet::<f32>::new(7, 40, 3);
    fleet.updates[2].fill(f32::MAX);
    let work = Work::default();
    let rest = fleet.with_round(|round| {
        aggregate_rest(round, &work, |part| {
            let aggregator = strategy.configured(&told).unwrap();
            aggregate_in_memory(&*aggregator, &Guard::default(), part, &work)
        })
    });
    assert_eq!(rest.unwrap().unusable, [2]);
}

#[test]
fn claims_count_for_no_more_than_ten_times_the_usual() {
    for (name, boast) in [("fednova", 1e15), ("qfedavg", 1e300)] {
        let strategy = find(name).unwrap();
        let claimed = |claim: f64| {
            let mut fleet = Fleet::<f32>::new(7, 40, 3);
            fleet.facts.iter_mut().for_each(|it| (it.steps, it.loss) = (Some(5), Some(0.5)));
            (fleet.facts[1].steps, fleet.facts[1].loss) = (Some(claim as u64), Some(claim));
            let work = Work::default();
            let made = fleet.with_round(|round| {
                aggregate_in_memory(&*(strategy.build)(), &Guard::default(), round, &work)
            });
            made.unwrap().weights
        };
        assert_eq!(claimed(boast), claimed(boast / 10.0), "{name}");
    }
}
