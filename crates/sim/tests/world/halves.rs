//! A world that is run in halves has the history that it has as a whole.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use sim::{
    Cost, Device, Job, LinkRule, NoProgress, NoTrace, Ran, Scenario, Span, Stop, Summary, Timed,
    Workload, World,
};

use crate::stage::{scenario, setup, slow_network};

/// Counts the tasks that are begun beside the services.
#[derive(Default)]
struct Beside(AtomicU64);

impl Workload for Beside {
    fn run(&self, job: &Job) -> Ran {
        if thread::current().name() == Some("crowd") {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        Timed.run(job)
    }

    fn cost(&self) -> Cost {
        Cost::Cheap
    }
}

fn crowd() -> Scenario {
    let mut scenario = scenario(300, 3);
    scenario.network = slow_network();
    scenario.nodes[0].clock.drift_ppm = 40.0;
    scenario.platform.alive_every = Span::millis(700);
    scenario
}

fn run(scenario: &Scenario, threads: usize) -> (Summary, u64) {
    let mut scenario = scenario.clone();
    scenario.simulation.threads = threads;
    let beside = Arc::new(Beside::default());
    let mut world = World::new(&scenario, setup(Arc::clone(&beside) as _)).unwrap();
    let summary = world.run(&mut NoTrace, &mut NoProgress).unwrap();
    (summary, beside.0.load(Ordering::Relaxed))
}

fn is_the_same_in_halves(scenario: &Scenario) -> Summary {
    let (whole, none) = run(scenario, 1);
    let (halves, some) = run(scenario, 2);
    assert!(none == 0 && some > 100, "{some} tasks were begun beside the services");
    assert_eq!(halves, whole);
    whole
}

#[test]
fn a_crowd_has_one_history_in_halves_and_as_a_whole() {
    let mut scenario = crowd();
    let summary = is_the_same_in_halves(&scenario);
    assert_eq!(summary.rounds_complete(), 3, "{:?}", summary.rounds);
    // Also when the run goes on after its rounds.
    scenario.simulation.stop = Stop::AtEnd;
    scenario.simulation.until = Span::secs(20);
    is_the_same_in_halves(&scenario);
}

#[test]
fn a_run_that_ends_while_many_are_at_work_ends_at_the_same_event() {
    let mut scenario = crowd();
    scenario.rounds[0].k_of_n = Some(150);
    scenario.network.links = ["manager", "coordinator", "model-server"]
        .into_iter()
        .flat_map(|service| [(service, "broker"), ("broker", service)])
        .map(|(src, dst)| LinkRule {
            src: src.into(),
            dst: dst.into(),
            latency_us: 100,
            jitter_us: 0,
            loss_rate: 0.0,
            duplicate_rate: 0.0,
            reorder_rate: 0.0,
            bandwidth_bps: None,
            shared: None,
        })
        .collect();
    let summary = is_the_same_in_halves(&scenario);
    assert_eq!(summary.rounds_complete(), 3, "{:?}", summary.rounds);
}

#[test]
fn full_windows_and_empty_batteries_are_no_different_in_halves() {
    let mut scenario = crowd();
    scenario.platform.broker.inflight_max = 1;
    let device = Device { battery_j: Some(0.9), active_w: 5.0, ..Device::default() };
    scenario.devices.insert("x86".into(), device);
    scenario.rounds[0].timeout = Span::secs(5);
    scenario.simulation.until = Span::secs(100);
    scenario.simulation.stop = Stop::AtEnd;
    let summary = is_the_same_in_halves(&scenario);
    assert!(summary.energy_j.values().any(|used| *used >= 0.9), "no battery is empty");
    // The broker misses them sooner than a packet takes, or never.
    for keep_alive in [Span::millis(2), Span::millis(0)] {
        scenario.platform.broker.keep_alive = keep_alive;
        is_the_same_in_halves(&scenario);
    }
}
