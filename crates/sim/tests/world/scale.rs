//! How far it goes; by command only, since it takes a while.

use sim::{NoProgress, NoTrace, Span, World};

use crate::stage::{scenario, setup};

/// `SIM_NODES` and `SIM_ROUNDS` say how many.
#[test]
#[ignore = "a measurement"]
fn many_proplets() {
    let number =
        |name: &str, otherwise| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    let (nodes, rounds) = (number("SIM_NODES", 10_000), number("SIM_ROUNDS", 10));
    let mut scenario = scenario(nodes, rounds);
    scenario.platform.alive_every = Span::secs(3_600);
    scenario.platform.liveness = Span::secs(36_000);
    scenario.rounds[0].timeout = Span::secs(600);
    scenario.platform.results_kept = 1;
    scenario.platform.tasks_kept = 100;
    scenario.simulation.until = Span::secs(1_000);
    let mut world = World::new(&scenario, setup(std::sync::Arc::new(sim::Timed))).unwrap();
    let summary = world.run(&mut NoTrace, &mut NoProgress).unwrap();
    assert_eq!(summary.rounds_complete(), rounds as usize);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    eprintln!("{} events, {peak}", summary.events);
}
