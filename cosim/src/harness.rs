//! Starts the outside nodes of a scenario and shakes hands with them, so that a world can run.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use sim::{NodeDialect, NodeKind, NodeSpec, Peer, PeerError, Scenario};

use crate::{
    launch::{
        LaunchError, Launched, ProcessNode, Run, connect,
        docker::{DockerError, DockerNode, Engine},
    },
    peer::{Contact, Limits, NodePeer},
    wire::Dialect,
};

/// How long a node that listens is knocked at.
const KNOCK: Duration = Duration::from_secs(10);

/// Why the outside nodes are not there.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("node {node} is outside, but says nothing of how it is started")]
    NoSpec { node: String },
}

/// The fidelity of proplets whose tasks a program of their own computes.
pub const CONTAINER: &str = "container";
/// Whom such a program answers.
pub const AGENT: &str = "agent";

/// Whether a scenario has nodes outside of this process.
pub fn has_outside(scenario: &Scenario) -> bool {
    scenario.nodes.iter().any(|node| node.kind != NodeKind::Proplet || is_container(node))
}

fn is_container(node: &NodeSpec) -> bool {
    node.kind == NodeKind::Proplet && node.fidelity.as_deref() == Some(CONTAINER)
}

/// Files that a scenario names and that are not there, relative to its own directory.
pub fn missing_files(scenario: &Scenario, dir: &Path) -> Vec<String> {
    let mut missing = vec![];
    for node in &scenario.nodes {
        let docker = node.docker.as_ref();
        let named = [
            node.process.as_ref().and_then(|spec| spec.directory.as_ref()),
            docker.and_then(|spec| spec.build_context.as_ref()),
        ];
        for path in named.into_iter().flatten() {
            if !dir.join(path).exists() {
                missing.push(format!("node {}: {path} is not there", node.id));
            }
        }
    }
    missing
}

/// Starts every outside node; what is started ends with `run`, or with its peer.
pub fn peers(
    scenario: &Scenario,
    dir: &Path,
    run: &Run,
) -> Result<BTreeMap<String, Box<dyn Peer>>, HarnessError> {
    let mut known: BTreeSet<String> = scenario.nodes.iter().flat_map(NodeSpec::names).collect();
    known.insert("broker".to_owned());
    let outside = scenario.nodes.iter().filter(|node| node.kind != NodeKind::Proplet);
    let outside = outside.map(|spec| (spec.kind, spec));
    met(scenario, outside, Arc::new(known), dir, run)
}

/// Starts the programs that compute the tasks of proplets, by the proplets' names.
pub fn workers(
    scenario: &Scenario,
    dir: &Path,
    run: &Run,
) -> Result<BTreeMap<String, Box<dyn Peer>>, HarnessError> {
    let known = Arc::new([AGENT.to_owned()].into());
    let specs = scenario.nodes.iter().filter(|node| is_container(node)).map(|spec| {
        let kind = match (&spec.docker, &spec.process, &spec.tcp) {
            (Some(_), _, _) => NodeKind::Docker,
            (None, Some(_), _) => NodeKind::Process,
            (None, None, Some(_)) => NodeKind::Tcp,
            (None, None, None) => NodeKind::Proplet,
        };
        (kind, spec)
    });
    met(scenario, specs, known, dir, run)
}

fn met<'a>(
    scenario: &Scenario,
    specs: impl Iterator<Item = (NodeKind, &'a NodeSpec)>,
    known: Arc<BTreeSet<String>>,
    dir: &Path,
    run: &Run,
) -> Result<BTreeMap<String, Box<dyn Peer>>, HarnessError> {
    let mut engine = None;
    let mut peers: BTreeMap<String, Box<dyn Peer>> = BTreeMap::new();
    for (kind, spec) in specs {
        for node in spec.names() {
            let launched = launch(&node, (kind, spec), dir, run, &mut engine)?;
            let contact = Contact {
                node: node.clone(),
                dialect: dialect(spec.dialect),
                limits: Limits::default(),
                known: Arc::clone(&known),
            };
            let Launched { channel, keeper } = launched;
            let config = config(&node, spec);
            let peer = NodePeer::meet(contact, channel, keeper, scenario.simulation.seed, config)?;
            peers.insert(node, Box::new(peer));
        }
    }
    Ok(peers)
}

fn launch(
    node: &str,
    (kind, spec): (NodeKind, &NodeSpec),
    dir: &Path,
    run: &Run,
    engine: &mut Option<Engine>,
) -> Result<Launched, HarnessError> {
    let none = || HarnessError::NoSpec { node: node.to_owned() };
    match kind {
        NodeKind::Proplet => Err(none()),
        NodeKind::Process => {
            let mut process = ProcessNode::of(node, spec.process.as_ref().ok_or_else(none)?)?;
            process.dir = Some(process.dir.map_or_else(|| dir.to_owned(), |own| dir.join(own)));
            Ok(process.start(run)?)
        }
        NodeKind::Tcp => {
            let tcp = spec.tcp.as_ref().ok_or_else(none)?;
            if tcp.command.is_empty() {
                return Ok(connect(node, &tcp.address, KNOCK)?);
            }
            let mut process = ProcessNode::listening(node, tcp)?;
            process.dir = Some(dir.to_owned());
            Ok(process.start_and_connect(&tcp.address, run)?)
        }
        NodeKind::Docker => {
            let mut docker = spec.docker.clone().ok_or_else(none)?;
            docker.build_context =
                docker.build_context.map(|context| dir.join(context).display().to_string());
            let engine = match engine {
                Some(engine) => engine,
                None => engine.insert(Engine::connect()?),
            };
            Ok(DockerNode::new(node, docker).start(engine, run)?)
        }
    }
}

const fn dialect(spoken: NodeDialect) -> Dialect {
    match spoken {
        NodeDialect::Json => Dialect::Json,
        NodeDialect::PlainTcp => Dialect::PlainTcp,
        NodeDialect::PlainStdio => Dialect::PlainStdio,
    }
}

/// What a node is told of itself at INIT.
fn config(node: &str, spec: &NodeSpec) -> Value {
    let mut config = spec.config.clone();
    let given = [("node", json!(node)), ("data", json!(spec.data)), ("device", json!(spec.device))];
    for (key, value) in given {
        config.entry(key).or_insert(value);
    }
    Value::Object(config)
}
