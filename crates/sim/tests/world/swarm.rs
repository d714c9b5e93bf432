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

/// `SIM_SEED` says which; prints what happened.
#[test]
#[ignore = "for a look at one seed"]
fn one_seed() {
    let seed = std::env::var("SIM_SEED").map_or(0, |text| text.parse().unwrap());
    let swarm = Swarm { first_seed: seed, seeds: 1, faults_max: 8, replay: Replay::Once };
    let failure = swarm.run(|_| true).failures.pop();
    let scenario = failure.map_or_else(|| Plan::of(seed, 8).scenario, |it| it.scenario);
    let mut world = Plan { seed, scenario }.world().unwrap();
    let mut tape = crate::stage::Tape::default();
    world.run(&mut tape, &mut sim::NoProgress).unwrap();
    for event in tape.0.iter().take(400) {
        eprintln!("{:>11} {:<13} {:<12} {}", event.time_us, event.source, event.kind, event.detail);
    }
}
