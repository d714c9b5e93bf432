//! One seed, one history.

use std::{sync::Arc, thread};

use sim::{
    Cost, Fault, Job, Kill, Memory, NoProgress, NoTrace, Ran, Scenario, Span, Timed, Workload,
    World,
};

use crate::stage::{run, scenario, setup, slow_network};

/// Slow, and never equally so.
struct Heavy;

impl Workload for Heavy {
    fn run(&self, job: &Job) -> Ran {
        (0..job.seed % 7).for_each(|_| thread::yield_now());
        Timed.run(job)
    }

    fn cost(&self) -> Cost {
        Cost::Slow
    }
}

fn rough() -> Scenario {
    let mut scenario = scenario(8, 4);
    scenario.network = slow_network();
    scenario.nodes[0].clock.drift_ppm = 40.0;
    scenario.rounds[0].k_of_n = Some(5);
    let node = "p-3".into();
    let (at, down) = (Span::millis(2_100), Some(Span::secs(1)));
    scenario.faults =
        vec![Fault::Crash(Kill { node, at, down, state: Memory::Kept, power: false })];
    scenario
}

#[test]
fn a_run_is_the_same_three_times_and_on_any_number_of_threads() {
    let mut scenario = rough();
    let mut summaries = vec![];
    for threads in [1, 1, 1, 2, 8] {
        scenario.simulation.threads = threads;
        let mut world = World::new(&scenario, setup(Arc::new(Heavy))).unwrap();
        summaries.push(world.run(&mut NoTrace, &mut NoProgress).unwrap());
    }
    assert_eq!(summaries[0].rounds_complete(), 4, "{:?}", summaries[0].rounds);
    assert!(summaries.iter().all(|it| it == &summaries[0]));
    // Whether anybody looks, and whether tasks are put off, is not part of history.
    assert_eq!(run(&scenario).0, summaries[0]);
}

#[test]
fn another_seed_is_another_history() {
    let mut scenario = rough();
    let (first, _) = run(&scenario);
    scenario.simulation.seed = 1;
    let (second, _) = run(&scenario);
    assert_ne!(first.trace_sha256, second.trace_sha256);
}

#[test]
fn events_are_handed_out_in_the_order_of_time() {
    let (summary, tape) = run(&rough());
    assert!(tape.0.is_sorted_by_key(|event| event.time_us));
    let hashed = tape.0.iter().filter(|event| event.kind != "note").count();
    assert_eq!(hashed as u64, summary.events);
}

#[test]
fn a_run_is_the_same_whether_or_not_anybody_will_read_what_is_kept() {
    let unread = scenario(8, 4);
    let mut kept = unread.clone();
    // Who comes back from a crash reads what it kept; this crash comes after the last round.
    let (node, at, down) = ("*".into(), Span::secs(590), Some(Span::secs(1)));
    kept.simulation.until = Span::secs(600);
    kept.faults = vec![Fault::Crash(Kill { node, at, down, state: Memory::Kept, power: false })];
    let [(unread, _), (kept, _)] = [run(&unread), run(&kept)];
    assert_eq!(unread.rounds_complete(), 4);
    assert_eq!((unread.events, &unread.models), (kept.events, &kept.models));
}
