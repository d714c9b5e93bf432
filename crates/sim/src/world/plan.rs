//! The nodes of a world out of its scenario.

use std::{collections::BTreeMap, sync::Arc};

use lineage::Offer;
use protocol::{
    PropletId, Records, Timestamp,
    message::{Hyperparams, StrategySpec},
};

use super::{
    Node,
    alarm::Alarm,
    build::{BROKER, COORDINATOR, FIRST, MANAGER, MODEL_SERVER, OPERATOR},
    nodes::Nodes,
};
use crate::{
    ClockSpec, Device, Dice, Fault, NodeKind, NodeSpec, OnFailure, Scenario, SessionSpec,
    client::Client,
    clock::Clock,
    host::Host,
    role::{Averaging, Bench, Library, Operator, Role, Script, ScriptRound, ScriptSession},
    scenario::{SERVICES, SESSIONS, fits},
};

/// Tasks that the manager holds beside one for every proplet.
const TASKS_SPARE: usize = 20_000;

/// What is needed to make nodes.
pub(super) struct Plan<'a> {
    scenario: &'a Scenario,
    devices: BTreeMap<String, Arc<Device>>,
    /// What proplets have in common: those that can be restarted, and the others.
    kept: Arc<agent::Config>,
    unread: Arc<agent::Config>,
    /// What they are run at, where nothing else is said.
    fidelity: Arc<str>,
    /// Nodes outside, by place, with the longest window that they are given.
    pub(super) outside: Vec<(u32, OnFailure, Option<u64>)>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(scenario: &'a Scenario, classes: &BTreeMap<String, Device>) -> Self {
        let all = classes.iter().chain(&scenario.devices);
        let devices = all.map(|(name, device)| {
            let device = Device { class: name.clone(), ..device.clone() };
            (name.clone(), Arc::new(device))
        });
        Self {
            scenario,
            devices: devices.collect(),
            kept: Arc::new(Bench::config(&scenario.platform, Records::Kept)),
            unread: Arc::new(Bench::config(&scenario.platform, Records::NeverRead)),
            fidelity: "model".into(),
            outside: vec![],
        }
    }

    pub(super) fn nodes(&mut self, initial: Offer) -> Nodes {
        let platform = &self.scenario.platform;
        let proplets = self.proplets();
        let limits = fleet::Limits {
            liveness: platform.liveness.duration(),
            proplets_max: fleet::Limits::default().proplets_max.max(proplets.len() + 1),
            federated_kept_max: platform.tasks_kept,
            records: self.records("manager", None),
            inline_len_max: usize::MAX,
            tasks_max: 2 * proplets.len() + platform.tasks_kept + TASKS_SPARE,
            ..fleet::Limits::default()
        };
        let strategy = aggregate::find(&platform.strategy).expect("the scenario was checked").name;
        let rules = round::Rules {
            updates_min: platform.updates_min,
            strategy,
            records: self.records("coordinator", None),
            ..round::Rules::default()
        };
        let averaging = Averaging { ns_per_weight: platform.aggregate_ns_per_weight };
        let library = Library::new(platform.model_write.micros());
        let script = self.script(proplets);
        let count: usize = self.scenario.nodes.iter().map(|spec| spec.names().len()).sum();
        let epoch = self.scenario.simulation.epoch;
        let right = Clock::new(epoch, &ClockSpec::default());
        let mut services: Vec<Node> = Vec::with_capacity(FIRST as usize);
        for (name, role) in SERVICES.into_iter().zip([
            Role::Broker,
            Role::manager(limits),
            Role::coordinator(rules, averaging),
            Role::model_server(initial, library, self.records("model-server", None)),
            Role::Operator(Box::new(Host::new(Operator::new(script), Records::NeverRead))),
        ]) {
            let device = self.device(None);
            services.push(self.node(name.to_owned(), role, device, right.clone()));
        }
        assert_eq!([BROKER, MANAGER, COORDINATOR, MODEL_SERVER, OPERATOR], [0, 1, 2, 3, 4]);
        let mut crowd: Vec<Node> = Vec::with_capacity(count + 1);
        if !self.scenario.sessions.is_empty() {
            let role = Role::sessions(self.records(SESSIONS, None));
            let device = self.device(None);
            crowd.push(self.node(SESSIONS.to_owned(), role, device, right));
        }
        for spec in &self.scenario.nodes {
            let clock = Clock::new(epoch, &spec.clock);
            for (i, name) in spec.names().into_iter().enumerate() {
                let place = FIRST as usize + crowd.len();
                crowd.push(self.own_node((spec, &clock), i, name, place));
            }
        }
        Nodes::new(services, crowd)
    }

    fn own_node(
        &mut self,
        (spec, clock): (&NodeSpec, &Clock),
        i: usize,
        name: String,
        place: usize,
    ) -> Node {
        let role = match spec.kind {
            NodeKind::Proplet => {
                let id: PropletId = name.parse().expect("the scenario was checked");
                let seed = Dice::of(self.scenario.simulation.seed, &name, "agent").roll();
                let config = match self.records(&name, Some(spec)) {
                    Records::Kept => &self.kept,
                    Records::NeverRead => &self.unread,
                };
                Role::proplet(Bench::new(id, Arc::clone(config), seed))
            }
            NodeKind::Process | NodeKind::Docker | NodeKind::Tcp => {
                let place = u32::try_from(place).expect("the number of nodes was checked");
                let step_us = spec.step.map(|step| step.micros().max(1));
                self.outside.push((place, spec.on_failure, step_us));
                Role::Peer
            }
        };
        let mut node = self.node(name, role, self.device(spec.device.as_ref()), clock.clone());
        if let Some(fidelity) = spec.fidelity.as_deref().filter(|it| *it != &*self.fidelity) {
            node.fidelity = fidelity.into();
        }
        let data = spec.data.as_ref();
        node.data = data.map(|data| data.replace("{i}", &i.to_string()).into());
        node
    }

    fn node(&self, name: String, role: Role, device: Arc<Device>, clock: Clock) -> Node {
        let seed = self.scenario.simulation.seed;
        Node {
            role,
            client: Client::default(),
            clock,
            device,
            fidelity: Arc::clone(&self.fidelity),
            data: None,
            seed: Dice::of(seed, &name, "tasks").roll(),
            life: 0,
            alive: true,
            alarm: Alarm::default(),
            running: vec![],
            ticked_us: u64::MAX,
            pace: 1.0,
            lie: None,
            dice: Dice::of(seed, &name, "node"),
            energy_j: 0.0,
            name: name.into(),
        }
    }

    fn device(&self, class: Option<&String>) -> Arc<Device> {
        let class = class.unwrap_or(&self.scenario.platform.server_device);
        Arc::clone(self.devices.get(class).expect("the scenario was checked"))
    }

    /// Whether a node's disk may ever be read.
    fn records(&self, name: &str, spec: Option<&NodeSpec>) -> Records {
        let comes_back = |fault: &Fault| match fault {
            Fault::Crash(kill) => kill.down.is_some() && fits(&kill.node, name),
            Fault::BrokerRestart(_)
            | Fault::Partition(_)
            | Fault::Slow(_)
            | Fault::Byzantine(_) => false,
        };
        let absent = spec.is_some_and(|spec| spec.availability.is_some());
        if absent || self.scenario.faults.iter().any(comes_back) {
            Records::Kept
        } else {
            Records::NeverRead
        }
    }

    fn proplets(&self) -> Vec<PropletId> {
        let specs = self.scenario.nodes.iter().filter(|spec| spec.kind == NodeKind::Proplet);
        let ids = specs.flat_map(NodeSpec::names).map(|name| name.parse());
        ids.map(|id| id.expect("the scenario was checked")).collect()
    }

    fn script(&self, proplets: Vec<PropletId>) -> Script {
        let epoch = self.scenario.simulation.epoch;
        let mut rounds = vec![];
        for spec in &self.scenario.rounds {
            for n in 1..=spec.repeat {
                let id =
                    if spec.repeat == 1 { spec.id.clone() } else { format!("{}-{n}", spec.id) };
                let hyperparams = serde_json::to_string(&spec.hyperparams);
                let hyperparams = hyperparams.expect("JSON serializes");
                rounds.push(ScriptRound {
                    id: id.parse().expect("the scenario was checked"),
                    not_before: at(epoch, spec.at.micros()),
                    pause: spec.pause.duration(),
                    model: spec.model,
                    participants: spec.participants.clone(),
                    k_of_n: spec.k_of_n,
                    timeout_s: spec.timeout.micros().div_ceil(1_000_000),
                    min_updates: spec.min_updates,
                    hyperparams: Hyperparams::parse(&hyperparams).expect("it is an object"),
                    image: spec.image.clone(),
                });
            }
        }
        let seed = self.scenario.simulation.seed;
        let name = self.scenario.platform.strategy.clone();
        let strategy = StrategySpec { name, params: BTreeMap::new() };
        let strategy = Some(strategy).filter(StrategySpec::has_control);
        let session = |spec: &SessionSpec| ScriptSession {
            start: spec.read().expect("the scenario was checked"),
            not_before: at(epoch, spec.at.micros()),
        };
        let sessions = self.scenario.sessions.iter().map(session).collect();
        Script { seed, proplets: Arc::new(proplets), rounds, sessions, strategy }
    }
}

fn at(epoch: Timestamp, micros: u64) -> Timestamp {
    Timestamp::from_micros(epoch.as_micros().saturating_add(micros))
}
