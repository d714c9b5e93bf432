//! Nodes outside, played by closures.

use std::sync::{Arc, Mutex};

use serde_json::json;
use sim::{
    Done, NoProgress, NodeKind, NodeSpec, OnFailure, Peer, PeerError, PeerEvent, ProcessSpec,
    RunError, Scenario, Span, Stop,
};

use crate::stage::{run_with, scenario, slow_network};

type Window = (u64, Vec<PeerEvent>);
type Rude = fn(u64) -> PeerEvent;
type Act = Box<dyn FnMut(u64, &[PeerEvent]) -> Result<Done, String> + Send>;

/// A node that does what a closure says; its windows are written down.
struct Puppet {
    name: &'static str,
    act: Act,
    windows: Arc<Mutex<Vec<Window>>>,
    begun: Option<Window>,
    shut: Arc<Mutex<u32>>,
}

impl Peer for Puppet {
    fn begin(&mut self, to_us: u64, events: Vec<PeerEvent>) -> Result<(), PeerError> {
        self.begun = Some((to_us, events));
        Ok(())
    }

    fn finish(&mut self) -> Result<Done, PeerError> {
        let (to_us, events) = self.begun.take().unwrap();
        let done = (self.act)(to_us, &events);
        self.windows.lock().unwrap().push((to_us, events));
        done.map_err(|what| PeerError { node: self.name.into(), time_us: to_us, line: None, what })
    }

    fn shutdown(&mut self) {
        *self.shut.lock().unwrap() += 1;
    }
}

#[derive(Clone, Default)]
pub(crate) struct Seen {
    windows: Arc<Mutex<Vec<Window>>>,
    shut: Arc<Mutex<u32>>,
}

pub(crate) fn puppet(
    name: &'static str,
    act: impl FnMut(u64, &[PeerEvent]) -> Result<Done, String> + Send + 'static,
) -> (Box<dyn Peer>, Seen) {
    let seen = Seen::default();
    let (windows, shut) = (Arc::clone(&seen.windows), Arc::clone(&seen.shut));
    (Box::new(Puppet { name, act: Box::new(act), windows, begun: None, shut }), seen)
}

pub(crate) fn event(
    time_us: u64,
    src: &str,
    dst: &str,
    kind: &str,
    payload: serde_json::Value,
) -> PeerEvent {
    let (src, dst, kind) = (src.into(), dst.into(), kind.into());
    PeerEvent { time_us, kind, src, dst, payload, size_bytes: 100 }
}

fn with_outside(names: &[&str], on_failure: OnFailure) -> Scenario {
    let mut scenario = scenario(2, 1);
    scenario.network = slow_network();
    scenario.network.default.loss_rate = 0.0;
    for name in names {
        scenario.nodes.push(NodeSpec {
            id: (*name).into(),
            kind: NodeKind::Process,
            process: Some(ProcessSpec::default()),
            on_failure,
            ..NodeSpec::default()
        });
    }
    scenario
}

fn idle(_: u64, _: &[PeerEvent]) -> Result<Done, String> {
    Ok(Done { next_us: Some(u64::MAX), events: vec![] })
}

#[test]
fn events_between_nodes_take_their_links_time_and_idle_time_is_skipped() {
    let mut scenario = with_outside(&["ping", "pong"], OnFailure::Stop);
    scenario.simulation.stop = Stop::AtEnd;
    scenario.simulation.until = Span::secs(3_600);
    let mut sent = 0;
    let (ping, pings) = puppet("ping", move |to, heard| {
        let mut events = vec![];
        if heard.iter().any(|it| it.kind == "pong") || sent == 0 {
            sent += 1;
            if sent <= 5 {
                let at = heard.last().map_or(to, |it| it.time_us);
                events.push(event(at, "ping", "pong", "ping", json!(sent)));
            }
        }
        Ok(Done { next_us: Some(u64::MAX), events })
    });
    let (pong, pongs) = puppet("pong", |_, heard| {
        let answer = |it: &PeerEvent| event(it.time_us, "pong", "ping", "pong", it.payload.clone());
        let heard = heard.iter().filter(|it| it.kind == "ping");
        Ok(Done { next_us: Some(u64::MAX), events: heard.map(answer).collect() })
    });
    let (mut world, mut tape) = run_with(&scenario, vec![("ping", ping), ("pong", pong)]);
    world.run(&mut tape, &mut NoProgress).unwrap();
    let heard: Vec<_> = pongs.windows.lock().unwrap().iter().flat_map(|it| it.1.clone()).collect();
    assert_eq!(heard.len(), 5);
    let gaps = heard.windows(2).map(|it| it[1].time_us - it[0].time_us);
    assert!(
        gaps.clone().all(|gap| (40_000..80_000).contains(&gap)),
        "{:?}",
        gaps.collect::<Vec<_>>()
    );
    // An hour of virtual time in a handful of windows.
    assert!(pings.windows.lock().unwrap().len() < 20);
    assert!(pings.windows.lock().unwrap().is_sorted_by_key(|it| it.0));
    assert_eq!((*pings.shut.lock().unwrap(), *pongs.shut.lock().unwrap()), (1, 1));
}

#[test]
fn a_node_outside_speaks_mqtt_with_proplets_and_others() {
    let scenario = with_outside(&["gateway", "sink"], OnFailure::Stop);
    let mut step = 0;
    let (gateway, _) = puppet("gateway", move |to, _| {
        step += 1;
        let publish = json!({ "topic": "sensors/temp", "payload": "25.3" });
        let events = if step == 2 {
            vec![event(to, "gateway", "broker", PeerEvent::PUBLISH, publish)]
        } else {
            vec![]
        };
        let next_us = Some(if step < 2 { 1_000_000 } else { u64::MAX });
        Ok(Done { next_us, events })
    });
    let mut told = false;
    let (sink, seen) = puppet("sink", move |to, _| {
        let wants = [json!({ "filter": "sensors/#" }), json!({ "filter": "$share/g/sensors/+" })];
        let subscribe =
            |filter: serde_json::Value| event(to, "sink", "broker", PeerEvent::SUBSCRIBE, filter);
        let events = if told { vec![] } else { wants.into_iter().map(subscribe).collect() };
        told = true;
        Ok(Done { next_us: Some(u64::MAX), events })
    });
    let (mut world, mut tape) = run_with(&scenario, vec![("gateway", gateway), ("sink", sink)]);
    let summary = world.run(&mut tape, &mut NoProgress).unwrap();
    assert_eq!(summary.rounds_complete(), 1);
    let heard: Vec<_> = seen.windows.lock().unwrap().iter().flat_map(|it| it.1.clone()).collect();
    // Once by its own subscription, once as the only member of its group.
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert_eq!(heard[0].kind, PeerEvent::MESSAGE);
    assert_eq!(heard[0].payload["topic"], "sensors/temp");
    assert_eq!(heard[0].payload["payload"], "25.3");
    assert!(heard[0].time_us >= 1_040_000, "two links lie between");
}

#[test]
fn a_node_that_breaks_the_rules_ends_the_run_or_is_left_behind() {
    let rude: [(&str, Rude); 4] = [
        ("unknown destination", |to| event(to, "rude", "nobody", "x", json!(null))),
        ("outside of its window", |to| event(to + 1, "rude", "broker", "mqtt_publish", json!({}))),
        ("has no text \"topic\"", |to| event(to, "rude", "broker", "mqtt_publish", json!({}))),
        ("takes no event", |to| event(to, "rude", "broker", "shout", json!({}))),
    ];
    for (what, bad) in rude {
        let act = move |to: u64, _: &[PeerEvent]| {
            let events = if to > 500_000 { vec![bad(to)] } else { vec![] };
            Ok(Done { next_us: Some(600_000), events })
        };
        let (peer, seen) = puppet("rude", act);
        let scenario = with_outside(&["rude"], OnFailure::Stop);
        let (mut world, mut tape) = run_with(&scenario, vec![("rude", peer)]);
        let Err(RunError::Peer(why)) = world.run(&mut tape, &mut NoProgress) else {
            panic!("{what}: the run went on")
        };
        assert!(why.what.contains(what) && why.node == "rude", "{why}");
        assert!(why.time_us >= 600_000);
        drop(world);
        assert_eq!(*seen.shut.lock().unwrap(), 1);
        let (peer, seen) = puppet("rude", act);
        let scenario = with_outside(&["rude"], OnFailure::GoOn);
        let (mut world, mut tape) = run_with(&scenario, vec![("rude", peer)]);
        let summary = world.run(&mut tape, &mut NoProgress).unwrap();
        assert_eq!(summary.rounds_complete(), 1);
        assert_eq!(summary.lost_nodes.len(), 1);
        assert_eq!(*seen.shut.lock().unwrap(), 1);
    }
}

#[test]
fn a_node_that_dies_in_mid_run_is_named_with_its_time() {
    let dies = |to: u64, _: &[PeerEvent]| {
        if to > 2_000_000 {
            Err("it is dead".to_owned())
        } else {
            idle(to, &[]).map(|_| Done { next_us: Some(to + 100_000), events: vec![] })
        }
    };
    let scenario = with_outside(&["mortal"], OnFailure::Stop);
    let (mut world, mut tape) = run_with(&scenario, vec![("mortal", puppet("mortal", dies).0)]);
    let why = world.run(&mut tape, &mut NoProgress).unwrap_err();
    let RunError::Peer(why) = why else { panic!("{why}") };
    assert_eq!((why.node.as_str(), why.what.as_str()), ("mortal", "it is dead"));
    assert!(why.time_us > 2_000_000);
}

#[test]
fn a_node_that_does_not_say_when_is_advanced_in_steps_of_its_lookahead() {
    let mut scenario = with_outside(&["plain"], OnFailure::Stop);
    scenario.simulation.stop = Stop::AtEnd;
    scenario.simulation.until = Span::secs(1);
    scenario.rounds.clear();
    let silent = |_: u64, _: &[PeerEvent]| Ok(Done::default());
    let (peer, seen) = puppet("plain", silent);
    let (mut world, mut tape) = run_with(&scenario, vec![("plain", peer)]);
    world.run(&mut tape, &mut NoProgress).unwrap();
    let ends: Vec<_> = seen.windows.lock().unwrap().iter().map(|it| it.0).collect();
    assert_eq!(ends.len(), 50, "a latency of 20 ms");
    assert_eq!(ends.last(), Some(&1_000_000));
}
