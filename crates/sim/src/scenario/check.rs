//! Everything that is wrong with a scenario, all at once.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{PropletId, RoundId};

use super::{NodeKind, Scenario, network::fits};
use crate::Assertion;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{path}: {what}")]
pub struct Problem {
    /// Where, as `nodes[2].device`.
    pub path: String,
    pub what: String,
}

/// Names that stand for nodes without a line of their own.
pub(crate) const SERVICES: [&str; 5] =
    ["broker", "manager", "coordinator", "model-server", "operator"];

/// The part of the coordinator that runs sessions, where there are any: a client of its own.
pub(crate) const SESSIONS: &str = "sessions";

/// Most nodes in one world.
const NODES_MAX: usize = 1_000_000;

impl Scenario {
    /// What is wrong; `classes` are the device classes that are known beside the scenario's own.
    pub fn problems(&self, classes: &BTreeSet<String>) -> Vec<Problem> {
        let mut found = Found(vec![]);
        let names = self.check_nodes(classes, &mut found);
        self.check_network(&names, &mut found);
        self.check_rounds(&mut found);
        self.check_sessions(&mut found);
        self.check_faults(&names, &mut found);
        for (i, text) in self.assertions.iter().enumerate() {
            if let Err(why) = text.parse::<Assertion>() {
                found.add(format!("assertions[{i}]"), why.to_string());
            }
        }
        if aggregate::find(&self.platform.strategy).is_none() {
            let known: Vec<_> = aggregate::STRATEGIES.iter().map(|it| it.name).collect();
            let what = format!("{:?} is not one of {}", self.platform.strategy, known.join(", "));
            found.add("platform.strategy", what);
        }
        for (name, device) in &self.devices {
            if let Some(Err(why)) = device.slowdown.as_ref().map(crate::Slowdown::check) {
                found.add(format!("devices.{name}.slowdown"), why);
            }
        }
        if self.simulation.quantum.micros() == 0 {
            found.add("simulation.quantum", "0s does not advance anybody");
        }
        if self.platform.broker.inflight_max == 0 {
            found.add("platform.broker.inflight_max", "0 lets no message pass");
        }
        found.0
    }

    fn check_nodes(&self, classes: &BTreeSet<String>, found: &mut Found) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = SERVICES.map(str::to_owned).into();
        if !self.sessions.is_empty() {
            names.insert(SESSIONS.to_owned());
        }
        let known = |class: &String| classes.contains(class) || self.devices.contains_key(class);
        let count: u64 = self.nodes.iter().map(|node| u64::from(node.count.unwrap_or(1))).sum();
        if count > NODES_MAX as u64 {
            found.add("nodes", format!("{count} nodes, at most {NODES_MAX} are simulated"));
            return names;
        }
        for (i, node) in self.nodes.iter().enumerate() {
            let path = format!("nodes[{i}]");
            if let Err(why) = node.id.parse::<PropletId>() {
                found.add(format!("{path}.id"), why.to_string());
            }
            for name in node.names() {
                if names.contains(&name) {
                    found.add(format!("{path}.id"), format!("{name:?} is there already"));
                }
                names.insert(name);
            }
            if let Some(class) = node.device.as_ref().filter(|class| !known(class)) {
                found.add(format!("{path}.device"), format!("{class:?} is not a device class"));
            }
            let missing = match node.kind {
                NodeKind::Proplet => None,
                NodeKind::Process => node.process.is_none().then_some("process"),
                NodeKind::Docker => node.docker.is_none().then_some("docker"),
                NodeKind::Tcp => node.tcp.is_none().then_some("tcp"),
            };
            if let Some(key) = missing {
                found.add(path, format!("{:?} needs the key {key:?}", node.id));
            }
        }
        let server = &self.platform.server_device;
        if !known(server) {
            found.add("platform.server_device", format!("{server:?} is not a device class"));
        }
        names
    }

    fn check_network(&self, names: &BTreeSet<String>, found: &mut Found) {
        let media: BTreeMap<_, _> =
            self.network.shared.iter().map(|it| (it.name.as_str(), it.bandwidth_bps)).collect();
        for (i, rule) in self.network.links.iter().enumerate() {
            for (key, pattern) in [("src", &rule.src), ("dst", &rule.dst)] {
                if !names.iter().any(|name| fits(pattern, name)) {
                    let what = format!("{pattern:?} is no node");
                    found.add(format!("network.links[{i}].{key}"), what);
                }
            }
            for (key, rate) in [
                ("loss_rate", rule.loss_rate),
                ("duplicate_rate", rule.duplicate_rate),
                ("reorder_rate", rule.reorder_rate),
            ] {
                found.rate(format!("network.links[{i}].{key}"), rate);
            }
            if let Some(shared) = rule.shared.as_ref().filter(|it| !media.contains_key(it.as_str()))
            {
                let what = format!("{shared:?} is not in network.shared");
                found.add(format!("network.links[{i}].shared"), what);
            }
        }
        found.rate("network.default.loss_rate", self.network.default.loss_rate);
    }

    fn check_rounds(&self, found: &mut Found) {
        let mut ids = BTreeSet::new();
        for (i, round) in self.rounds.iter().enumerate() {
            let path = format!("rounds[{i}]");
            if let Err(why) = format!("{}-{}", round.id, round.repeat).parse::<RoundId>() {
                found.add(format!("{path}.id"), why.to_string());
            }
            if !ids.insert(&round.id) {
                found.add(format!("{path}.id"), format!("{:?} is there already", round.id));
            }
            if round.timeout.micros() < 1_000_000 {
                found.add(format!("{path}.timeout"), format!("{} is below 1s", round.timeout));
            }
        }
    }

    fn check_sessions(&self, found: &mut Found) {
        let mut ids = BTreeSet::new();
        for (i, session) in self.sessions.iter().enumerate() {
            let path = format!("sessions[{i}].start");
            match session.read() {
                Err(why) => found.add(path, why),
                Ok(start) if !ids.insert(start.session_id.clone()) => {
                    found.add(path, format!("session {} is there already", start.session_id));
                }
                Ok(_) => {}
            }
        }
    }

    fn check_faults(&self, names: &BTreeSet<String>, found: &mut Found) {
        let outside = self.nodes.iter().filter(|node| node.kind != NodeKind::Proplet);
        let outside: Vec<String> = outside.flat_map(super::NodeSpec::names).collect();
        for (i, fault) in self.faults.iter().enumerate() {
            for pattern in fault.nodes() {
                if !names.iter().any(|name| fits(pattern, name)) {
                    found.add(format!("faults[{i}]"), format!("{pattern:?} is no node"));
                }
                let beyond = outside.iter().find(|name| fits(pattern, name));
                if let Some(name) = beyond.filter(|_| !fault.reaches_outside()) {
                    let what = "a node outside: it can be cut off, not crashed, slowed or turned";
                    found.add(format!("faults[{i}]"), format!("{name:?} is {what}"));
                }
            }
        }
    }
}

struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, path: impl Into<String>, what: impl Into<String>) {
        self.0.push(Problem { path: path.into(), what: what.into() });
    }

    /// A rate of one would never let anything pass.
    fn rate(&mut self, path: impl Into<String>, rate: f64) {
        if !(0.0..1.0).contains(&rate) {
            self.add(path, format!("{rate} is not from 0 to below 1"));
        }
    }
}
