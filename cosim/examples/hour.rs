//! How long one hour of virtual time takes with ten nodes that send a message a second each:
//! `hour inprocess|stdio [nodes] [seconds]`.
//!
//! Each node sends to the next one, over links of ten milliseconds. It is its own janitor, and its own node.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    error::Error,
    io::{Write, stdout},
    process::Command,
    sync::Arc,
    time::Instant,
};

use cosim::{
    launch::{ProcessNode, Run, janitor},
    node::{self, Service, Start, Step, Window},
    peer::{Contact, Limits, NodePeer},
    wire::{Dialect, Event},
};
use serde_json::json;
use sim::{
    Done, LinkSpec, NetworkModel, NetworkSpec, NoTrace, NodeKind, NodeSpec, Peer, PeerError,
    PeerEvent, ProcessSpec, Progress, Scenario, Setup, Simulation, Span, State, Stop, Timed, World,
};

const SECOND_US: u64 = 1_000_000;
const MODEL_0: &[u8] = br#"{"w":[0.0,0.0,0.0],"b":0.0,"version":0}"#;

/// Says something every second.
#[derive(Default)]
struct Talker {
    next: String,
    said: u64,
    heard: u64,
}

impl Talker {
    fn due(&mut self, to_us: u64) -> Vec<(u64, u64)> {
        let due = self.said + 1..=to_us / SECOND_US;
        self.said = self.said.max(*due.end());
        due.map(|number| (number * SECOND_US, number)).collect()
    }

    fn next_us(&self) -> u64 {
        (self.said + 1) * SECOND_US
    }
}

impl Service for Talker {
    fn init(&mut self, start: Start) -> Result<(), String> {
        self.next = start.config["next"].as_str().ok_or("who is next?")?.to_owned();
        Ok(())
    }

    fn advance(&mut self, window: Window) -> Result<Step, String> {
        self.heard += window.events.len() as u64;
        let due = self.due(window.to_us);
        let said = due.into_iter().map(|(time_us, number)| Event {
            time_us: Some(time_us),
            kind: "said".to_owned(),
            src: None,
            dst: Some(self.next.clone()),
            payload: json!({ "n": number }),
            size_bytes: 8,
        });
        Ok(Step { events: said.collect(), next_us: Some(self.next_us()) })
    }
}

/// The same in this process.
struct Local {
    name: String,
    talker: Talker,
    to_us: u64,
}

impl Peer for Local {
    fn begin(&mut self, to_us: u64, events: Vec<PeerEvent>) -> Result<(), PeerError> {
        self.talker.heard += events.len() as u64;
        self.to_us = to_us;
        Ok(())
    }

    fn finish(&mut self) -> Result<Done, PeerError> {
        let events = self.talker.due(self.to_us).into_iter().map(|(time_us, number)| PeerEvent {
            time_us,
            kind: "said".to_owned(),
            src: self.name.clone(),
            dst: self.talker.next.clone(),
            payload: json!({ "n": number }),
            size_bytes: 8,
        });
        Ok(Done { events: events.collect(), next_us: Some(self.talker.next_us()) })
    }

    fn shutdown(&mut self) {}
}

/// Lets the run go its way.
struct Unwatched;

impl Progress for Unwatched {
    fn advance(&mut self, _next_us: u64, _state: &State) -> bool {
        true
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let count =
        |place: usize, default: u64| arguments.get(place).map_or(Ok(default), |it| it.parse());
    match arguments.first().map(String::as_str) {
        Some("janitor") => Ok(janitor(&arguments[1..])?),
        Some("node") => Ok(node::run(Talker::default())?),
        Some("inprocess") => measure(count(1, 10)?, count(2, 3600)?, None),
        Some("stdio") => {
            let mut own_janitor = Command::new(env::current_exe()?);
            own_janitor.arg("janitor");
            measure(count(1, 10)?, count(2, 3600)?, Some(&Run::start(own_janitor)?))
        }
        Some(_) | None => Err("inprocess or stdio?".into()),
    }
}

#[expect(clippy::disallowed_methods, reason = "what is measured is wall time")]
fn measure(nodes: u64, seconds: u64, run: Option<&Run>) -> Result<(), Box<dyn Error>> {
    let names: Vec<String> = (0..nodes).map(|index| format!("node-{index}")).collect();
    let known = Arc::new(names.iter().cloned().collect::<BTreeSet<_>>());
    let mut peers: BTreeMap<String, Box<dyn Peer>> = BTreeMap::new();
    for (index, name) in names.iter().enumerate() {
        let next = names[(index + 1) % names.len()].clone();
        let peer: Box<dyn Peer> = match run {
            None => {
                let talker = Talker { next, ..Talker::default() };
                Box::new(Local { name: name.clone(), talker, to_us: 0 })
            }
            Some(run) => Box::new(outside(name, &next, &known, run)?),
        };
        peers.insert(name.clone(), peer);
    }
    let setup = Setup {
        workload: Arc::new(Timed),
        peers,
        model0: MODEL_0.into(),
        classes: serde_saphyr::from_str(sim::DEVICES_YAML)?,
        judge: None,
    };
    let mut world = World::new(&scenario(&names, seconds), setup)?;
    let begin = Instant::now();
    let summary = world.run(&mut NoTrace, &mut Unwatched)?;
    let took = begin.elapsed().as_secs_f64();
    let said = summary.metrics.get("events_said").and_then(|samples| samples.last());
    let said = said.map_or(0.0, |sample| sample.value);
    #[expect(clippy::cast_precision_loss, reason = "a rate for the eye")]
    let faster = seconds as f64 / took;
    Ok(writeln!(
        stdout(),
        "{nodes} nodes, {seconds} s virtual, {said} messages: {took:.3} s, {faster:.0} times the wall's pace"
    )?)
}

fn outside(
    name: &str,
    next: &str,
    known: &Arc<BTreeSet<String>>,
    run: &Run,
) -> Result<NodePeer, Box<dyn Error>> {
    let program = env::current_exe()?.display().to_string();
    let launched = ProcessNode::new(name, &program, &["node"]).start(run)?;
    let (node, dialect, limits) = (name.to_owned(), Dialect::Json, Limits::default());
    let contact = Contact { node, dialect, limits, known: Arc::clone(known) };
    Ok(NodePeer::meet(contact, launched.channel, launched.keeper, 0, json!({ "next": next }))?)
}

fn scenario(names: &[String], seconds: u64) -> Scenario {
    let node = |name: &String| NodeSpec {
        id: name.clone(),
        kind: NodeKind::Process,
        process: Some(ProcessSpec::default()),
        ..NodeSpec::default()
    };
    Scenario {
        simulation: Simulation {
            until: Span::secs(seconds),
            stop: Stop::AtEnd,
            ..Simulation::default()
        },
        network: NetworkSpec {
            model: NetworkModel::Latency,
            default: LinkSpec { latency_us: 10_000, ..LinkSpec::default() },
            ..NetworkSpec::default()
        },
        nodes: names.iter().map(node).collect(),
        ..Scenario::default()
    }
}
