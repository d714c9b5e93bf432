//! What every story needs: a scenario, a setup, a run.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use sim::{
    Device, LinkSpec, NetworkModel, NetworkSpec, NoProgress, NodeSpec, OneHot, Peer, RoundSpec,
    Scenario, Setup, Summary, Timed, TraceEvent, TraceSink, Wants, Workload, World,
};

/// Keeps all that it is told.
#[derive(Debug, Default)]
pub(crate) struct Tape(pub(crate) Vec<TraceEvent>);

impl TraceSink for Tape {
    fn wants(&self) -> Wants {
        Wants::Notes
    }

    fn event(&mut self, event: TraceEvent) {
        self.0.push(event);
    }
}

impl Tape {
    pub(crate) fn of_kind(&self, kind: &str) -> Vec<&TraceEvent> {
        self.0.iter().filter(|event| event.kind == kind).collect()
    }
}

pub(crate) const MODEL: &str = r#"{"w":[0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0],"version":0}"#;

pub(crate) fn scenario(proplets: u32, rounds: u32) -> Scenario {
    let node = NodeSpec { id: "p".into(), count: Some(proplets), ..NodeSpec::default() };
    let round = RoundSpec { id: "r".into(), repeat: rounds, ..RoundSpec::default() };
    Scenario { nodes: vec![node], rounds: vec![round], ..Scenario::default() }
}

pub(crate) fn slow_network() -> NetworkSpec {
    let default = LinkSpec {
        latency_us: 20_000,
        jitter_us: 15_000,
        loss_rate: 0.01,
        bandwidth_bps: Some(1_000_000),
        ..LinkSpec::default()
    };
    NetworkSpec { model: NetworkModel::Latency, default, ..NetworkSpec::default() }
}

pub(crate) fn classes() -> BTreeMap<String, Device> {
    [("x86".to_owned(), Device::default())].into()
}

pub(crate) fn setup(workload: Arc<dyn Workload>) -> Setup {
    Setup {
        workload,
        peers: BTreeMap::new(),
        model0: Bytes::from_static(MODEL.as_bytes()),
        classes: classes(),
        judge: None,
    }
}

pub(crate) fn one_hot(scenario: &Scenario) -> OneHot {
    let names = scenario.nodes.iter().flat_map(NodeSpec::names);
    OneHot::new(names.map(|name| name.parse().unwrap()))
}

pub(crate) fn run(scenario: &Scenario) -> (Summary, Tape) {
    let mut world = World::new(scenario, setup(Arc::new(Timed))).unwrap();
    let mut tape = Tape::default();
    let summary = world.run(&mut tape, &mut NoProgress).unwrap();
    (summary, tape)
}

pub(crate) fn run_with(scenario: &Scenario, peers: Vec<(&str, Box<dyn Peer>)>) -> (World, Tape) {
    let peers = peers.into_iter().map(|(name, peer)| (name.to_owned(), peer)).collect();
    let setup = Setup { peers, ..setup(Arc::new(Timed)) };
    (World::new(scenario, setup).unwrap(), Tape::default())
}
