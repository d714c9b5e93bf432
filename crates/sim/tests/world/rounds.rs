//! Rounds as they should go.

use std::sync::Arc;

use protocol::{ModelVersion, ledger, message::Model};
use sim::{Availability, Device, NoProgress, NoTrace, Participants, RoundOutcome, Span, World};

use crate::stage::{one_hot, run, scenario, setup, slow_network};

#[test]
fn three_proplets_make_a_model_each_round() {
    let (summary, tape) = run(&scenario(3, 2));
    assert_eq!(summary.rounds_complete(), 2, "{:?}", summary.rounds);
    assert_eq!(summary.versions.len(), 3);
    assert!(summary.rounds.iter().all(|it| it.end.as_ref().unwrap().num_updates == 3));
    // A round takes what a task takes on this device, and little more.
    let round = &summary.rounds[0];
    let took = round.end.as_ref().unwrap().heard_us - round.asked_us;
    assert!((180_000..300_000).contains(&took), "{took} us");
    assert_eq!(tape.of_kind("task_end").len(), 6);
    assert!(summary.virtual_us < 4_000_000);
}

#[test]
fn the_model_holds_exactly_what_was_counted() {
    let mut scenario = scenario(5, 3);
    scenario.network = slow_network();
    let workload = one_hot(&scenario);
    let mut world = World::new(&scenario, setup(Arc::new(workload.clone()))).unwrap();
    world.gather_evidence();
    let summary = world.run(&mut NoTrace, &mut NoProgress).unwrap();
    assert_eq!(summary.rounds_complete(), 3, "{:?}", summary.rounds);
    let model: Model = serde_json::from_slice(&summary.models[&ModelVersion(3)]).unwrap();
    let members = (0..5).map(|i| {
        let (index, num_samples) = workload.member(&format!("p-{i}").parse().unwrap()).unwrap();
        ledger::Member { index, num_samples, standing: ledger::Standing::Accepted }
    });
    let members: Vec<_> = members.collect();
    let total_samples = members.iter().map(|member| member.num_samples).sum();
    let claim = ledger::Claim { num_updates: 5, total_samples };
    assert_eq!(ledger::check(&members, &model.tensors, claim), Ok((0..5).collect()));
    let mut evidence = world.evidence();
    evidence.members = (0..5)
        .map(|i| format!("p-{i}").parse().unwrap())
        .map(|id| (workload.member(&id).map(|member| (id, member))).unwrap())
        .collect();
    assert_eq!(evidence.violations(), []);
}

#[test]
fn a_straggler_is_not_waited_for_beyond_k() {
    let mut scenario = scenario(4, 1);
    let slow = Device { task_us: 60_000_000, ..Device::default() };
    scenario.devices.insert("snail".into(), slow);
    scenario.nodes.push(sim::NodeSpec {
        id: "late".into(),
        device: Some("snail".into()),
        ..sim::NodeSpec::default()
    });
    scenario.rounds[0].k_of_n = Some(4);
    let (summary, _) = run(&scenario);
    let end = summary.rounds[0].end.clone().unwrap();
    assert_eq!(end.num_updates, 4);
    assert!(end.heard_us < 3_000_000, "{end:?}");
    // With nobody to spare, the round waits until its timeout and takes what it has.
    scenario.rounds[0].k_of_n = None;
    scenario.rounds[0].timeout = Span::secs(10);
    let end = run(&scenario).0.rounds[0].end.clone().unwrap();
    assert_eq!(end.num_updates, 4);
    assert!((12_000_000..12_100_000).contains(&end.heard_us), "{end:?}");
}

#[test]
fn participants_are_drawn_anew_for_every_round() {
    let mut scenario = scenario(10, 6);
    scenario.rounds[0].participants = Participants::Sample(3);
    let (summary, tape) = run(&scenario);
    assert!(summary.rounds.iter().all(|it| it.participants == 3));
    assert_eq!(summary.rounds_complete(), 6);
    let begun: std::collections::BTreeSet<_> =
        tape.of_kind("task_begin").iter().map(|event| event.source.clone()).collect();
    assert!(begun.len() > 3, "the same three every time: {begun:?}");
}

#[test]
fn devices_that_come_and_go_still_make_models() {
    let mut scenario = scenario(12, 6);
    scenario.nodes[0].availability =
        Some(Availability::Churn { mean_up: Span::secs(20), mean_down: Span::secs(10) });
    scenario.rounds[0].k_of_n = Some(4);
    scenario.rounds[0].pause = Span::secs(20);
    let (summary, tape) = run(&scenario);
    assert!(summary.rounds.iter().all(|it| it.end.is_some()), "{:?}", summary.rounds);
    let complete = |it: &&sim::RoundSummary| {
        matches!(it.end.as_ref().unwrap().outcome, RoundOutcome::Complete { .. })
    };
    assert!(summary.rounds.iter().filter(complete).count() >= 4, "{:?}", summary.rounds);
    assert!(!tape.of_kind("down").is_empty());
}

#[test]
fn an_empty_battery_ends_a_device() {
    let mut scenario = scenario(3, 8);
    let device =
        Device { battery_j: Some(3.0), active_w: 5.0, task_spread: 0.0, ..Device::default() };
    scenario.devices.insert("x86".into(), device);
    scenario.rounds[0].timeout = Span::secs(5);
    scenario.simulation.until = Span::secs(600);
    let (summary, tape) = run(&scenario);
    // Five watts for a fifth of a second: three rounds, and no more.
    assert_eq!(tape.of_kind("down").len(), 3);
    assert!(summary.energy_j.iter().all(|(_, used)| (3.0..4.1).contains(used)));
    assert_eq!(summary.rounds_complete(), 3, "{:?}", summary.rounds);
}

#[test]
fn a_scenario_that_cannot_be_is_refused_with_everything_that_is_wrong() {
    let mut bad = scenario(2, 1);
    bad.nodes[0].device = Some("abacus".into());
    bad.platform.strategy = "guess".into();
    bad.assertions = vec!["loss is small".into()];
    let why = World::new(&bad, setup(Arc::new(sim::Timed))).unwrap_err();
    let sim::SetupError::Problems(problems) = why else { panic!("{why}") };
    let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for part in ["nodes[0].device", "abacus", "platform.strategy", "guess", "assertions[0]"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}
