//! A scenario in tables, before it is run: its nodes, its links, and how far ahead nodes outside may
//! run.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use sim::{LinkSpec, NetworkModel, NodeKind, NodeSpec, PeerEvent, Scenario, Span};

use crate::view;

/// Rows of links that eyes are shown.
const LINKS_SHOWN: usize = 40;

/// The tables of one scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Tables {
    nodes: Vec<NodeRow>,
    links: Vec<LinkRow>,
    lookahead: Vec<LookaheadRow>,
}

/// Nodes of one line of the scenario.
#[derive(Debug, Serialize)]
struct NodeRow {
    nodes: String,
    count: usize,
    kind: NodeKind,
    device: String,
    fidelity: Option<String>,
    data: Option<String>,
    program: Option<String>,
}

/// Links that are alike.
#[derive(Debug, PartialEq, Serialize)]
struct LinkRow {
    from: String,
    to: String,
    #[serde(flatten)]
    spec: LinkSpec,
    shared: Option<String>,
}

/// A node outside.
#[derive(Debug, Serialize)]
struct LookaheadRow {
    node: String,
    /// How much later anybody can notice what it does.
    lookahead_us: u64,
    /// How far it is advanced at a time, as long as it does not say when it acts next.
    window_us: u64,
}

impl Tables {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        Self {
            nodes: scenario.nodes.iter().map(|spec| node_row(scenario, spec)).collect(),
            links: links(scenario),
            lookahead: lookahead(scenario),
        }
    }

    pub(crate) fn show(&self) {
        let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let nodes = self.nodes.iter().map(|row| {
            let kind = view::cell(&serde_json::to_value(row.kind).unwrap_or(Value::Null));
            let (count, fidelity, data) =
                (row.count.to_string(), dash(&row.fidelity), dash(&row.data));
            vec![
                row.nodes.clone(),
                count,
                kind,
                row.device.clone(),
                fidelity,
                data,
                dash(&row.program),
            ]
        });
        view::table(&["node", "count", "type", "device", "fidelity", "data", "program"], nodes);
        let shown = self.links.iter().take(LINKS_SHOWN).map(|row| {
            let spec = &row.spec;
            let us = |us: u64| Span(us).to_string();
            let rate = |rate: f64| format!("{} %", rate * 100.0);
            let bandwidth = spec.bandwidth_bps.map(|bps| format!("{} kbit/s", bps as f64 / 1e3));
            vec![
                row.from.clone(),
                row.to.clone(),
                us(spec.latency_us),
                us(spec.jitter_us),
                rate(spec.loss_rate),
                rate(spec.duplicate_rate),
                rate(spec.reorder_rate),
                dash(&bandwidth),
                dash(&row.shared),
            ]
        });
        view::table(
            &[
                "from",
                "to",
                "latency",
                "jitter",
                "loss",
                "doubled",
                "overtaken",
                "bandwidth",
                "shared",
            ],
            shown,
        );
        if self.links.len() > LINKS_SHOWN {
            view::line(format!("and {} links more", self.links.len() - LINKS_SHOWN));
        }
        if !self.lookahead.is_empty() {
            let rows = self.lookahead.iter().map(|row| {
                let [lookahead, window] =
                    [row.lookahead_us, row.window_us].map(|us| Span(us).to_string());
                vec![row.node.clone(), lookahead, window]
            });
            view::table(&["node outside", "lookahead", "window"], rows);
        }
    }
}

fn label(spec: &NodeSpec) -> String {
    match spec.count {
        None => spec.id.clone(),
        Some(1) => format!("{}-0", spec.id),
        Some(count) => format!("{}-0 .. {}", spec.id, count.saturating_sub(1)),
    }
}

fn node_row(scenario: &Scenario, spec: &NodeSpec) -> NodeRow {
    let docker = spec.docker.as_ref();
    let program = docker
        .and_then(|it| it.build_context.as_ref().or(it.image.as_ref()).cloned())
        .or_else(|| spec.process.as_ref().map(|it| it.command.join(" ")))
        .or_else(|| spec.tcp.as_ref().map(|it| it.address.clone()));
    let is_proplet = spec.kind == NodeKind::Proplet;
    NodeRow {
        nodes: label(spec),
        count: spec.names().len(),
        kind: spec.kind,
        device: spec.device.clone().unwrap_or_else(|| scenario.platform.server_device.clone()),
        fidelity: is_proplet.then(|| spec.fidelity.clone().unwrap_or_else(|| "model".to_owned())),
        data: spec.data.clone(),
        program,
    }
}

/// To the broker and from it for every node, and between nodes outside; alike ones in one row.
fn links(scenario: &Scenario) -> Vec<LinkRow> {
    let broker = PeerEvent::BROKER;
    let mut rows: Vec<LinkRow> = vec![];
    for spec in &scenario.nodes {
        for way in [Way::Up, Way::Down] {
            let names = spec.names();
            let between = |name: &str| match way {
                Way::Up => row(scenario, name, broker),
                Way::Down => row(scenario, broker, name),
            };
            let mut own: Vec<LinkRow> = names.iter().map(|name| between(name)).collect();
            // If all are alike, they are one row.
            let alike = own
                .windows(2)
                .all(|two| two[0].spec == two[1].spec && two[0].shared == two[1].shared);
            if alike && own.len() > 1 {
                own.truncate(1);
                let end = match way {
                    Way::Up => &mut own[0].from,
                    Way::Down => &mut own[0].to,
                };
                *end = label(spec);
            }
            rows.append(&mut own);
        }
    }
    let outside = outside(scenario);
    for src in &outside {
        let others = outside.iter().filter(|dst| *dst != src);
        rows.extend(others.map(|dst| row(scenario, src, dst)));
    }
    rows
}

#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

fn row(scenario: &Scenario, from: &str, to: &str) -> LinkRow {
    let (spec, shared) = match scenario.network.model {
        NetworkModel::Direct => (LinkSpec::default(), None),
        NetworkModel::Latency => scenario.network.between(from, to),
    };
    let shared = shared.map(str::to_owned);
    LinkRow { from: from.to_owned(), to: to.to_owned(), spec, shared }
}

fn outside(scenario: &Scenario) -> BTreeSet<String> {
    let outside = scenario.nodes.iter().filter(|spec| spec.kind != NodeKind::Proplet);
    outside.flat_map(NodeSpec::names).collect()
}

fn lookahead(scenario: &Scenario) -> Vec<LookaheadRow> {
    let all = outside(scenario);
    let mut rows = vec![];
    for spec in scenario.nodes.iter().filter(|spec| spec.kind != NodeKind::Proplet) {
        for node in spec.names() {
            let others = all.iter().map(String::as_str).chain([PeerEvent::BROKER]);
            let lookahead_us = scenario.network.lookahead_us(&node, others);
            let step_us = spec.step.map(Span::micros);
            let window_us = match lookahead_us {
                0 => step_us.unwrap_or(scenario.simulation.quantum.micros()),
                ahead => ahead.min(step_us.unwrap_or(u64::MAX)),
            };
            rows.push(LookaheadRow { node, lookahead_us, window_us });
        }
    }
    rows
}
