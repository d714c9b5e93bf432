//! A task's workload is run to its end before virtual time gets there. Whoever looks in between
//! sees a task that runs, and can stop it.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{
    PropletId, TaskId, Topic,
    message::{FailureCode, PropletAlive, PropletCreate, TaskResults},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sim::{
    Cost, Device, Done, Fault, Job, Kill, Memory, NoProgress, Peer, PeerEvent, Ran, RoundSpec,
    Scenario, Simulation, Span, Summary, Timed, TraceEvent, Workload, World,
};

use crate::{
    peers::{event, puppet},
    stage::{Tape, classes, scenario, setup},
};

/// Ten seconds for the tasks of the first round, and what a device takes for those of others.
struct Sleeps;

const SLEEP_US: u64 = 10_000_000;

impl Workload for Sleeps {
    fn run(&self, job: &Job) -> Ran {
        let ran = Timed.run(job);
        let is_first = job.start.env.get("ROUND_ID").is_some_and(|round| round == "r-1");
        Ran { compute_us: if is_first { SLEEP_US } else { ran.compute_us }, ..ran }
    }

    fn cost(&self) -> Cost {
        Cost::Slow
    }
}

fn devices() -> BTreeMap<String, Device> {
    let battery = Device { active_w: 2.0, ..Device::default() };
    let own = [("busy".to_owned(), battery)];
    classes().into_iter().chain(own).collect()
}

fn run(scenario: &Scenario) -> (Summary, Tape) {
    run_with(scenario, BTreeMap::new())
}

fn run_with(scenario: &Scenario, peers: BTreeMap<String, Box<dyn Peer>>) -> (Summary, Tape) {
    let setup = sim::Setup { classes: devices(), peers, ..setup(Arc::new(Sleeps)) };
    let mut world = World::new(scenario, setup).unwrap();
    let mut tape = Tape::default();
    let summary = world.run(&mut tape, &mut NoProgress).unwrap();
    (summary, tape)
}

/// One proplet with one place, and two rounds.
fn two_rounds() -> Scenario {
    let mut scenario = scenario(1, 2);
    scenario.nodes[0].device = Some("busy".to_owned());
    scenario.simulation = Simulation { until: Span::secs(60), ..Simulation::default() };
    scenario
}

fn begun(tape: &Tape) -> Vec<&TraceEvent> {
    tape.of_kind("task_begin")
}

/// Every message of a kind, as it was published.
fn said<T: DeserializeOwned>(tape: &Tape, wanted: &Topic) -> Vec<(u64, T)> {
    let packets = tape.of_kind("publish").into_iter().filter_map(|event| {
        let packet = event.packet.as_ref().filter(|packet| packet.topic == wanted.to_string())?;
        Some((event.time_us, serde_json::from_slice(&packet.payload).unwrap()))
    });
    packets.collect()
}

/// An operator of few words: stops the first task that it hears of, at five seconds.
fn stops_at_five_seconds() -> Box<dyn Peer> {
    let proplet: PropletId = "p-0".parse().unwrap();
    let (start, stop) = (
        Topic::DirectStart { proplet: proplet.clone() }.to_string(),
        Topic::DirectStop { proplet: proplet.clone() }.to_string(),
    );
    let mut heard: Option<TaskId> = None;
    let (mut listens, mut stopped) = (false, false);
    let act = move |to_us: u64, events: &[PeerEvent]| {
        let starts = events.iter().filter(|event| event.kind == PeerEvent::MESSAGE);
        for event in starts {
            let start: Value =
                serde_json::from_str(event.payload["payload"].as_str().unwrap()).unwrap();
            heard.get_or_insert(serde_json::from_value(start["id"].clone()).unwrap());
        }
        let mut said = vec![];
        if !listens {
            listens = true;
            said.push(event(0, "op", "broker", PeerEvent::SUBSCRIBE, json!({ "filter": start })));
        }
        if let Some(task) = heard.as_ref().filter(|_| to_us >= 5_000_000 && !stopped) {
            stopped = true;
            let payload = json!({ "id": task, "proplet_id": proplet }).to_string();
            let message = json!({ "topic": stop, "payload": payload });
            said.push(event(5_000_000, "op", "broker", PeerEvent::PUBLISH, message));
        }
        let next_us = if to_us < 5_000_000 { 5_000_000 } else { u64::MAX };
        Ok(Done { next_us: Some(next_us), events: said })
    };
    puppet("op", act).0
}

#[test]
fn a_task_that_is_stopped_in_its_sleep_frees_its_place_there_and_then() {
    let mut scenario = two_rounds();
    let process = Some(sim::ProcessSpec { command: vec!["op".to_owned()], ..Default::default() });
    let kind = sim::NodeKind::Process;
    scenario.nodes.push(sim::NodeSpec { id: "op".into(), kind, process, ..Default::default() });
    let (summary, tape) = run_with(&scenario, [("op".to_owned(), stops_at_five_seconds())].into());
    let results: Vec<(u64, TaskResults)> = said(&tape, &Topic::TaskResults);
    let (at_us, stopped) = &results[0];
    assert_eq!(stopped.code, Some(FailureCode(FailureCode::CANCELLED.to_owned())));
    assert!((5_000_000..5_010_000).contains(at_us), "{at_us}");
    let begun = begun(&tape);
    assert!(*at_us < begun[0].time_us + SLEEP_US / 2, "long before its own end");
    // Its participant has failed, so the round is over, and the next task finds the place free.
    assert!((*at_us..*at_us + 1_000_000).contains(&begun[1].time_us), "{}", begun[1].time_us);
    assert_eq!(summary.rounds_complete(), 1);
    // What it would have said at its end, nobody hears.
    assert_eq!(tape.of_kind("task_end").len(), 1);
    let slept_s = (at_us - begun[0].time_us) as f64 / 1e6;
    let energy_j = summary.energy_j["p-0"];
    assert!(energy_j > 1.9 * slept_s && energy_j < 2.0 * (slept_s + 1.0), "{energy_j}");
}

#[test]
fn a_round_may_end_while_its_task_sleeps_on_and_holds_its_place() {
    let mut scenario = two_rounds();
    scenario.platform.alive_every = Span::secs(1);
    let round = RoundSpec { repeat: 1, timeout: Span::secs(3), ..scenario.rounds[0].clone() };
    let second = RoundSpec { id: "r-2".into(), timeout: Span::secs(30), ..round.clone() };
    scenario.rounds = vec![RoundSpec { id: "r-1".into(), ..round }, second];
    let (summary, tape) = run(&scenario);
    let ended_us = summary.rounds[0].end.as_ref().unwrap().heard_us;
    assert!((5_000_000..5_100_000).contains(&ended_us), "{ended_us}");
    let begun = begun(&tape);
    let first: TaskId = serde_json::from_value(begun[0].detail["task"].clone()).unwrap();
    let signs: Vec<(u64, PropletAlive)> = said(&tape, &Topic::PropletAlive);
    let during: Vec<_> = signs
        .iter()
        .filter(|(at, _)| (ended_us..begun[0].time_us + SLEEP_US).contains(at))
        .collect();
    assert!(!during.is_empty(), "{signs:?}");
    for (at, sign) in during {
        let held = sign.tasks.as_ref().unwrap();
        assert!(held.iter().any(|held| held.id == first), "at {at}: {sign:?}");
    }
    // There is one place, and it is free when the sleeper is done with it.
    assert!(begun[1].time_us >= begun[0].time_us + SLEEP_US, "{}", begun[1].time_us);
    assert!(begun[1].time_us < begun[0].time_us + SLEEP_US + 100_000, "{}", begun[1].time_us);
    assert_eq!(summary.rounds_complete(), 1);
}

#[test]
fn whoever_asks_in_between_hears_of_a_task_that_runs() {
    let mut scenario = two_rounds();
    scenario.rounds[0].timeout = Span::secs(30);
    // Everybody introduces themselves anew, and says what they hold.
    scenario.faults.push(Fault::BrokerRestart(sim::Restart {
        at: Span::secs(6),
        down: Span::secs(1),
        state: Memory::Lost,
    }));
    let (summary, tape) = run(&scenario);
    assert_eq!(summary.rounds_complete(), 2);
    let began = begun(&tape)[0];
    let task: TaskId = serde_json::from_value(began.detail["task"].clone()).unwrap();
    let introductions: Vec<(u64, PropletCreate)> = said(&tape, &Topic::PropletCreate);
    let late: Vec<_> = introductions.iter().filter(|(at, _)| *at > 6_000_000).collect();
    assert!(!late.is_empty(), "{introductions:?}");
    for (at, introduction) in late.iter().filter(|(at, _)| *at < began.time_us + SLEEP_US) {
        let held = introduction.tasks.as_ref().unwrap();
        assert!(held.iter().any(|held| held.id == task), "at {at}: {introduction:?}");
    }
    let ended = tape.of_kind("task_end")[0];
    assert!(ended.time_us - began.time_us >= SLEEP_US);
}

#[test]
fn a_device_that_dies_in_a_tasks_sleep_takes_the_task_with_it() {
    let mut scenario = two_rounds();
    scenario.rounds[0].timeout = Span::secs(40);
    let (at, down) = (Span::secs(5), Some(Span::secs(2)));
    let kill = Kill { node: "p-0".into(), at, down, state: Memory::Kept, power: false };
    scenario.faults.push(Fault::Crash(kill));
    let (summary, tape) = run(&scenario);
    let begun = begun(&tape);
    // Nothing is heard of the first run at its end; the second takes its ten seconds anew.
    assert!(begun[1].time_us > 7_000_000, "{}", begun[1].time_us);
    let ended = tape.of_kind("task_end")[0];
    assert!(ended.time_us >= begun[1].time_us + SLEEP_US, "{}", ended.time_us);
    let energy_j = summary.energy_j["p-0"];
    let before_s = (5_000_000 - begun[0].time_us) as f64 / 1e6;
    assert!(energy_j > 2.0 * (before_s + 10.0), "{energy_j} for {before_s} s and ten more");
}
