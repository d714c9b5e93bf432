//! A short swarm; the long one runs by command.

use sim::{Plan, Replay, Swarm};

#[test]
fn whatever_goes_wrong_the_properties_hold() {
    swarm(Swarm { first_seed: 0, seeds: 60, faults_max: 6, replay: Replay::Twice });
}

/// `SIM_SEED` and `SIM_SEEDS` say which.
#[test]
#[ignore = "a long one"]
fn many_seeds() {
    let number =
        |name: &str, otherwise| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    let (first_seed, seeds) = (number("SIM_SEED", 0), number("SIM_SEEDS", 1_000));
    swarm(Swarm { first_seed, seeds, faults_max: 8, replay: Replay::Once });
}

fn swarm(swarm: Swarm) {
    let report = swarm.run(|_| true);
    for failure in &report.failures {
        eprintln!(
            "seed {}: {}: {} with {:?}",
            failure.seed, failure.property, failure.what, failure.scenario.faults
        );
    }
    assert!(report.failures.is_empty(), "{} of {} runs", report.failures.len(), report.runs);
    assert!(report.rounds_complete * 2 > report.rounds, "{report:?}");
}

#[test]
fn a_plan_depends_on_its_seed_alone() {
    assert_eq!(Plan::of(5, 4), Plan::of(5, 4));
    assert_ne!(Plan::of(5, 4), Plan::of(6, 4));
}
