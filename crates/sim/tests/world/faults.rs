//! What goes wrong, one thing at a time.

use sim::{
    Behaviour, Byzantine, Cut, Fault, Kill, Memory, NodeKind, NodeSpec, ProcessSpec, Restart,
    RoundOutcome, Scenario, Slow, Span, Stop, Summary,
};

use crate::stage::{Tape, run, scenario, slow_network};

fn with(faults: Vec<Fault>) -> (Summary, Tape) {
    run(&story(faults))
}

fn until(until: Span, faults: Vec<Fault>) -> (Summary, Tape) {
    let mut scenario = story(faults);
    scenario.simulation.until = until;
    scenario.simulation.stop = Stop::AtEnd;
    run(&scenario)
}

fn story(faults: Vec<Fault>) -> Scenario {
    let mut scenario = scenario(5, 3);
    scenario.network = slow_network();
    scenario.faults = faults;
    scenario
}

fn crash(node: &str, at_ms: u64, down_ms: u64) -> Fault {
    let (node, at, down) = (node.to_owned(), Span::millis(at_ms), Some(Span::millis(down_ms)));
    Fault::Crash(Kill { node, at, down, state: Memory::Kept, power: false })
}

#[test]
fn any_service_may_crash_in_mid_round() {
    for node in ["manager", "coordinator", "model-server", "p-2"] {
        for at_ms in [2_050, 2_200, 2_300, 2_400] {
            let (summary, tape) = with(vec![crash(node, at_ms, 700)]);
            assert_eq!(summary.rounds_complete(), 3, "{node} {at_ms}: {:?}", summary.rounds);
            assert_eq!(summary.versions.len(), 4, "{node} at {at_ms}");
            assert_eq!((tape.of_kind("down").len(), tape.of_kind("up").len()), (1, 1));
        }
    }
}

#[test]
fn the_broker_may_restart_and_forget_everything() {
    for state in [Memory::Kept, Memory::Lost] {
        for at_ms in [2_050, 2_250, 2_400] {
            let restart = Restart { at: Span::millis(at_ms), down: Span::secs(1), state };
            let (summary, _) = with(vec![Fault::BrokerRestart(restart)]);
            assert_eq!(summary.rounds_complete(), 3, "{state:?} {at_ms}: {:?}", summary.rounds);
        }
    }
}

#[test]
fn a_short_partition_delays_and_a_long_one_excludes() {
    let cut = |to| {
        let (nodes, from) = (vec!["p-1".to_owned()], Span::millis(2_100));
        until(Span::secs(400), vec![Fault::Partition(Cut { nodes, from, to })])
    };
    let (short, tape) = cut(Span::secs(5));
    assert!(tape.of_kind("disconnected").is_empty());
    assert_eq!(short.rounds[0].end.as_ref().unwrap().num_updates, 5);
    assert!(short.rounds[0].end.as_ref().unwrap().heard_us > 5_000_000);
    let (long, tape) = cut(Span::secs(300));
    assert_eq!(tape.of_kind("disconnected").len(), 1);
    assert_eq!(long.rounds[0].end.as_ref().unwrap().num_updates, 4);
}

#[test]
fn a_proplet_without_power_is_missed_only_after_its_keep_alive() {
    let fault = |power| {
        let (node, at) = ("p-0".to_owned(), Span::millis(2_150));
        Fault::Crash(Kill { node, at, down: None, state: Memory::Kept, power })
    };
    let lost_at = |power| {
        let (_, tape) = until(Span::secs(60), vec![fault(power)]);
        tape.of_kind("session_lost")[0].time_us
    };
    assert!(lost_at(false) < 2_300_000);
    assert_eq!(lost_at(true), 2_150_000 + 45_000_000);
}

#[test]
fn a_slow_proplet_holds_the_round_up() {
    let slow = Slow { node: "p-4".into(), from: Span::ZERO, to: None, factor: 50.0 };
    let (summary, _) = with(vec![Fault::Slow(slow)]);
    let took = summary.rounds[0].end.as_ref().unwrap().heard_us - summary.rounds[0].asked_us;
    assert!(took > 9_000_000, "{took}");
    assert_eq!(summary.rounds_complete(), 3);
}

#[test]
fn lies_that_can_be_told_are_refused_and_others_change_the_model() {
    let lie = |behaviour| {
        let nodes = "p-1".to_owned();
        let byzantine = Byzantine { nodes, share: 1.0, from: Span::ZERO, to: None, behaviour };
        with(vec![Fault::Byzantine(byzantine)]).0
    };
    let honest = with(vec![]).0;
    for (behaviour, reason) in
        [(Behaviour::Nan, "rejected_not_finite"), (Behaviour::Stale, "rejected_stale_base")]
    {
        let summary = lie(behaviour);
        assert!(summary.metrics.contains_key(reason), "{behaviour:?}: {:?}", summary.metrics);
        let end = summary.rounds[0].end.clone().unwrap();
        assert!(matches!(end.outcome, RoundOutcome::Complete { .. }));
        assert_eq!(end.num_updates, 4);
    }
    let noise = lie(Behaviour::Noise);
    assert_eq!(noise.rounds_complete(), 3);
    assert_ne!(noise.versions, honest.versions);
}

#[test]
fn a_deaf_manager_does_not_take_its_deafness_for_the_silence_of_its_proplets() {
    let cut = |nodes: &str| {
        let mut scenario = scenario(5, 1);
        scenario.network = slow_network();
        scenario.platform.broker.keep_alive = Span::secs(10);
        scenario.rounds[0].timeout = Span::secs(200);
        scenario.simulation.until = Span::secs(200);
        scenario.simulation.stop = Stop::AtEnd;
        // The tasks run for longer than the manager is away.
        let slow = Slow { node: "p-*".into(), from: Span::ZERO, to: None, factor: 600.0 };
        let (from, to) = (Span::secs(4), Span::secs(80));
        let cut = Cut { nodes: vec![nodes.to_owned()], from, to };
        scenario.faults = vec![Fault::Slow(slow), Fault::Partition(cut)];
        run(&scenario)
    };
    let offline = |tape: &Tape| -> Vec<String> {
        let notes = tape.of_kind("note").into_iter();
        let said = notes.map(|note| note.detail["text"].as_str().unwrap_or_default().to_owned());
        said.filter(|said| said.contains("is offline")).collect()
    };
    let (summary, tape) = cut("manager");
    assert_eq!(tape.of_kind("disconnected").len(), 1);
    assert!(offline(&tape).is_empty(), "{:?}", offline(&tape));
    let begun = tape.of_kind("task_begin");
    assert_eq!(begun.len(), 5, "nothing was begun again: {begun:?}");
    assert_eq!(summary.rounds[0].end.as_ref().unwrap().num_updates, 5);
    let (_, tape) = cut("p-1");
    assert!(offline(&tape).iter().any(|said| said.contains("p-1")), "silence is still noticed");
}

#[test]
fn a_fault_that_cannot_happen_to_a_node_outside_is_named_and_not_skipped() {
    let mut scenario = story(vec![crash("gateway", 100, 100), crash("p-1", 100, 100)]);
    let outside = NodeSpec {
        id: "gateway".into(),
        kind: NodeKind::Process,
        process: Some(ProcessSpec { command: vec!["true".into()], ..ProcessSpec::default() }),
        ..NodeSpec::default()
    };
    scenario.nodes.push(outside);
    let (nodes, from, to) = (vec!["gateway".into()], Span::ZERO, Span::secs(1));
    scenario.faults.push(Fault::Partition(Cut { nodes, from, to }));
    let problems = scenario.problems(&["x86".to_owned()].into());
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let expected = "faults[0]: \"gateway\" is a node outside: it can be cut off, not crashed, \
                    slowed or turned";
    assert_eq!(problems, [expected]);
}
