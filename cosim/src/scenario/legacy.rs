//! Scenario files of xEdgeSim: what their keys mean here, with a note on each that means something
//! else than its name says.

mod docker;

use serde::Deserialize;
use serde_json::{Map, Value};
use serde_saphyr::Spanned;
use sim::{
    LinkRule, LinkSpec, NetworkModel, NetworkSpec, NodeDialect, NodeKind, NodeSpec, Problem,
    ProcessSpec, Scenario, Simulation, Span, Stop, TcpSpec,
};

use self::docker::{Docker, Words};
use super::{Loaded, Sections, is, nearest::suggestion};

const SECTIONS: [&str; 4] = ["simulation", "network", "nodes", "ml_inference"];
/// Sections that only our own files have.
const OURS: [&str; 5] = ["platform", "devices", "rounds", "faults", "assertions"];

/// Whether a file is one of xEdgeSim's: it has keys that only those have, and no section of ours.
pub(super) fn is_legacy(sections: &Sections, nodes: &[Spanned<Value>]) -> bool {
    let has = |name: &str, keys: &[&str]| {
        let section = sections.get(name).and_then(|section| section.value.as_object());
        section.is_some_and(|section| keys.iter().any(|key| section.contains_key(*key)))
    };
    let is_old = |node: &Spanned<Value>| node.value.get("implementation").is_some();
    !OURS.iter().any(|name| sections.contains_key(*name))
        && (has("simulation", &["duration_s", "time_quantum_us"])
            || has("network", &["default_latency_us", "default_loss_rate"])
            || sections.contains_key("ml_inference")
            || nodes.iter().any(is_old))
}

/// Whether a section can be read.
pub(super) fn section(name: &str, value: &Value) -> Result<(), String> {
    match name {
        "simulation" => is::<Clockwork>(value),
        "network" => is::<Network>(value),
        "ml_inference" => is::<Inference>(value),
        "nodes" => is::<Vec<Value>>(value),
        unknown => {
            let hint = suggestion(unknown, SECTIONS.into_iter());
            Err(format!("xEdgeSim has no section {unknown:?}{hint}"))
        }
    }
}

/// A whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    simulation: Clockwork,
    #[serde(default)]
    network: Option<Network>,
    nodes: Vec<Node>,
    #[serde(default)]
    ml_inference: Option<Inference>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Clockwork {
    duration_s: Span,
    #[serde(default)]
    seed: u64,
    #[serde(default = "a_millisecond")]
    time_quantum_us: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Network {
    #[serde(default)]
    model: NetworkModel,
    #[serde(default = "ten_milliseconds")]
    default_latency_us: u64,
    #[serde(default)]
    default_loss_rate: f64,
    #[serde(default)]
    links: Vec<Link>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    src: String,
    dst: String,
    latency_us: Option<u64>,
    loss_rate: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inference {
    placement: Placement,
    edge_config: Option<Map<String, Value>>,
    cloud_config: Option<Map<String, Value>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Placement {
    Edge,
    Cloud,
}

/// A node; `command` and `channel` are ours, so that nodes can be started with the run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    implementation: Implementation,
    port: Option<u16>,
    docker: Option<Docker>,
    #[serde(default)]
    config: Map<String, Value>,
    seed: Option<u64>,
    command: Option<Words>,
    channel: Option<Channel>,
    #[expect(dead_code, reason = "a key of nodes that are not run here, and no mistake")]
    platform: Option<String>,
    #[expect(dead_code, reason = "a key of nodes that are not run here, and no mistake")]
    firmware: Option<String>,
    #[expect(dead_code, reason = "a key of nodes that are not run here, and no mistake")]
    monitor_port: Option<u16>,
    #[expect(dead_code, reason = "a key of nodes that are not run here, and no mistake")]
    working_dir: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Implementation {
    #[default]
    PythonModel,
    Docker,
    RenodeInprocess,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Channel {
    Stdio,
    Tcp,
}

const fn a_millisecond() -> u64 {
    1_000
}

const fn ten_milliseconds() -> u64 {
    10_000
}

/// The scenario that a file means, or what of it cannot be had.
pub(super) fn convert(sections: &Sections) -> Result<Loaded, Vec<Problem>> {
    // Not from the text: there keys may be numbers, as the ports of a container are.
    let whole: Map<String, Value> =
        sections.iter().map(|(name, section)| (name.clone(), section.value.clone())).collect();
    let file = serde_json::from_value::<File>(Value::Object(whole));
    let wrong =
        |why: serde_json::Error| vec![Problem { path: String::new(), what: why.to_string() }];
    file.map_err(wrong)?.convert()
}

impl File {
    fn convert(self) -> Result<Loaded, Vec<Problem>> {
        let mut loaded = Loaded::default();
        let Clockwork { duration_s, seed, time_quantum_us } = self.simulation;
        let step = Span(time_quantum_us.max(1));
        loaded.notes.push(format!("simulation.duration_s: the run ends at {duration_s}"));
        loaded.notes.push(format!(
            "simulation.time_quantum_us: no window of a node is longer than {step}; an event \
             arrives at its own time, not with the next quantum"
        ));
        let simulation =
            Simulation { seed, until: duration_s, stop: Stop::AtEnd, ..Simulation::default() };
        let mut common = Map::new();
        if let Some(inference) = self.ml_inference {
            inference.hand_out(&mut common, &mut loaded);
        }
        let mut nodes = vec![];
        let mut problems = vec![];
        for (i, node) in self.nodes.into_iter().enumerate() {
            match node.convert(step, &common, &mut loaded.notes) {
                Ok(node) => nodes.push(node),
                Err(what) => problems.push(Problem { path: format!("nodes[{i}]"), what }),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let network = self.network.map_or_else(NetworkSpec::default, Network::convert);
        loaded.scenario = Scenario { simulation, network, nodes, ..Scenario::default() };
        Ok(loaded)
    }
}

impl Network {
    fn convert(self) -> NetworkSpec {
        let Self { model, default_latency_us, default_loss_rate, links } = self;
        let default = LinkSpec {
            latency_us: default_latency_us,
            loss_rate: default_loss_rate,
            ..LinkSpec::default()
        };
        let rule = |Link { src, dst, latency_us, loss_rate }| LinkRule {
            src,
            dst,
            latency_us: latency_us.unwrap_or(default_latency_us),
            jitter_us: 0,
            loss_rate: loss_rate.unwrap_or(default_loss_rate),
            duplicate_rate: 0.0,
            reorder_rate: 0.0,
            bandwidth_bps: None,
            shared: None,
        };
        let links = links.into_iter().map(rule).collect();
        NetworkSpec { model, default, links, shared: vec![] }
    }
}

impl Inference {
    /// Every node is told of it at INIT: which of them infers, the nodes know.
    fn hand_out(self, common: &mut Map<String, Value>, loaded: &mut Loaded) {
        let Self { placement, edge_config, cloud_config } = self;
        let (placement, config) = match placement {
            Placement::Edge => ("edge", edge_config),
            Placement::Cloud => ("cloud", cloud_config),
        };
        let config = config.unwrap_or_default();
        if let Some(path) = config.get("model_path").and_then(Value::as_str) {
            let what = format!("ml_inference.{placement}_config.model_path");
            loaded.files.push((what, path.to_owned()));
        }
        let told = serde_json::json!({ "placement": placement, "config": config });
        common.insert("ml_inference".to_owned(), told);
        loaded.notes.push(format!(
            "ml_inference: each node finds it in its configuration at INIT, with the \
             configuration for {placement}"
        ));
    }
}

impl Node {
    fn convert(
        self,
        step: Span,
        common: &Map<String, Value>,
        notes: &mut Vec<String>,
    ) -> Result<NodeSpec, String> {
        let mut config = self.config.clone();
        config.entry("type").or_insert_with(|| self.kind.clone().into());
        config.extend(common.clone());
        if let Some(seed) = self.seed {
            config.insert("seed".to_owned(), seed.into());
        }
        let spec =
            NodeSpec { id: self.id.clone(), config, step: Some(step), ..NodeSpec::default() };
        match self.implementation {
            Implementation::PythonModel => self.program(spec, notes),
            Implementation::Docker => self.container(spec, notes),
            Implementation::RenodeInprocess => Err(format!(
                "{}: renode_inprocess is not run here; a program that drives the emulator can \
                 take its place, with `implementation: python_model` and a `command`",
                self.id
            )),
        }
    }

    fn program(self, spec: NodeSpec, notes: &mut Vec<String>) -> Result<NodeSpec, String> {
        let Self { id, port, command, channel, .. } = self;
        let command = command.map(Words::list).unwrap_or_default();
        if channel == Some(Channel::Stdio) || (port.is_none() && !command.is_empty()) {
            if command.is_empty() {
                return Err(format!("{id}: `channel: stdio` needs a `command`"));
            }
            notes.push(format!("node {id}: started with the run, spoken to over its pipes"));
            let process = Some(ProcessSpec { command, ..ProcessSpec::default() });
            let dialect = NodeDialect::PlainStdio;
            return Ok(NodeSpec { kind: NodeKind::Process, dialect, process, ..spec });
        }
        let Some(port) = port else { return Err(format!("{id} needs a `port` or a `command`")) };
        notes.push(if command.is_empty() {
            format!(
                "node {id}: has to listen on 127.0.0.1:{port} when the run begins; with a \
                 `command` it is started with the run"
            )
        } else {
            format!("node {id}: started with the run, spoken to on 127.0.0.1:{port}")
        });
        let tcp = Some(TcpSpec { address: format!("127.0.0.1:{port}"), command });
        Ok(NodeSpec { kind: NodeKind::Tcp, dialect: NodeDialect::PlainTcp, tcp, ..spec })
    }

    fn container(self, spec: NodeSpec, notes: &mut Vec<String>) -> Result<NodeSpec, String> {
        let id = self.id;
        let docker = self.docker.ok_or_else(|| format!("{id} needs the key `docker`"))?;
        if self.channel == Some(Channel::Tcp) {
            return Err(format!("{id}: a container is spoken to over its pipes, not over TCP"));
        }
        notes.push(format!(
            "node {id}: the container's own command speaks the protocol, over its pipes; no \
             `docker exec` follows, and `port` is not used"
        ));
        if docker.build_context.is_some() {
            notes
                .push(format!("node {id}: build_context is looked for beside the scenario's file"));
        }
        let docker = Some(docker.convert()?);
        let dialect = NodeDialect::PlainStdio;
        Ok(NodeSpec { kind: NodeKind::Docker, dialect, docker, ..spec })
    }
}
