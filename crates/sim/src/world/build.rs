//! A world out of its scenario.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lineage::Offer;
use protocol::{
    ModelVersion, PropletId, Records, Timestamp,
    message::{Hyperparams, StrategySpec},
};

use super::{
    Event, Node, Setup, SetupError, World,
    alarm::Alarm,
    halves::{Outbox, Part},
    nodes::Nodes,
    peers::{Outside, Peers},
    tasks::Tasks,
    watch::Watcher,
};
use crate::{
    Availability, ClockSpec, Device, Dice, Fault, NodeKind, NodeSpec, OnFailure, Scenario,
    SessionSpec,
    broker::{Answer, Broker, Want, Weather},
    client::{Client, Wish},
    clock::Clock,
    fault::Blow,
    host::Host,
    network::Network,
    queue::{Class, Queue},
    role::{Averaging, Bench, Library, Operator, Role, Script, ScriptRound, ScriptSession},
    scenario::{SERVICES, SESSIONS, fits},
    trace::Chain,
};

/// Where the services stand among the nodes.
pub(crate) const BROKER: u32 = 0;
const MANAGER: u32 = 1;
const COORDINATOR: u32 = 2;
pub(crate) const MODEL_SERVER: u32 = 3;
pub(crate) const OPERATOR: u32 = 4;
/// The first that is not one of these. With sessions, it is their part of the coordinator.
pub(crate) const FIRST: u32 = 5;

/// Tasks that the manager holds beside one for every proplet.
const TASKS_SPARE: usize = 20_000;
/// Services are there this long after the beginning, proplets from then on.
const SERVICES_US: u64 = 1_000;

impl World {
    /// Checks everything, and puts every node in its place.
    pub fn new(scenario: &Scenario, setup: Setup) -> Result<Self, SetupError> {
        let known: BTreeSet<String> = setup.classes.keys().cloned().collect();
        let problems = scenario.problems(&known);
        if !problems.is_empty() {
            return Err(SetupError::Problems(problems));
        }
        let initial =
            Offer::read(setup.model0.clone()).map_err(|why| SetupError::Model(why.to_string()))?;
        if initial.version() != ModelVersion(0) {
            return Err(SetupError::Version(initial.version().0));
        }
        let Setup { workload, mut peers, classes, judge, .. } = setup;
        let seed = scenario.simulation.seed;
        let mut plan = Plan::new(scenario, &classes);
        let nodes = plan.nodes(initial);
        let names: Vec<_> = nodes.iter().map(|node| Arc::clone(&node.name)).collect();
        let network = Network::new(scenario.network.clone(), seed, names.clone());
        let mut outside = vec![];
        for (node, policy, step_us) in plan.outside {
            let name = &names[node as usize];
            let peer = peers.remove(&**name).ok_or_else(|| SetupError::NoPeer(name.to_string()))?;
            outside.push((node, name.clone(), policy, step_us, peer));
        }
        let others: Vec<u32> = outside.iter().map(|(node, ..)| *node).collect();
        let mut slots = Peers::new(scenario.simulation.quantum.micros());
        for (node, name, policy, step_us, peer) in outside {
            let lookahead_us = network.lookahead_us(node, &others);
            slots.add((node, name.to_string()), Outside { policy, peer, lookahead_us, step_us });
        }
        let rough = !scenario.faults.is_empty()
            || !slots.is_empty()
            || scenario.nodes.iter().any(|node| node.availability.is_some());
        let weather = if rough { Weather::Rough } else { Weather::Calm };
        let mut world = Self {
            seed,
            until_us: scenario.simulation.until.micros(),
            stop: scenario.simulation.stop,
            epoch_us: scenario.simulation.epoch.as_micros(),
            queue: Queue::new(nodes.len()),
            broker: Broker::new(&scenario.platform.broker, weather, nodes.len()),
            nodes,
            network,
            keep_alive_us: scenario.platform.broker.keep_alive.micros(),
            reconnect: scenario.platform.broker.reconnect,
            tasks: Tasks::new(workload, scenario.simulation.threads),
            peers: slots,
            watcher: Watcher::new(judge),
            chain: Chain::default(),
            wants: crate::Wants::Nothing,
            traced: vec![],
            weather,
            now_us: 0,
            key: None,
            events: 0,
            acts: vec![],
            answer: Answer::default(),
            topic: String::new(),
            sent_us: None,
            part: Part::Whole,
            outbox: Outbox::default(),
        };
        world.schedule(scenario);
        Ok(world)
    }

    /// What happens without anybody's doing.
    fn schedule(&mut self, scenario: &Scenario) {
        for blow in scenario.faults.iter().flat_map(Fault::blows) {
            let event = Event::Blow(Box::new(blow.1));
            self.queue.push(blow.0.micros(), Class::Fault, BROKER, event);
        }
        let spread = scenario.platform.connect_spread.micros();
        let first = FIRST + u32::from(!scenario.sessions.is_empty());
        for node in 1..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX) {
            self.subscribe_to_own(node);
            let is_service = node < first;
            let it = self.node(node);
            let late = if is_service { 0 } else { SERVICES_US + it.dice.between(0, spread) };
            self.queue.push(late, Class::Connect, node, Event::Connect { node, life: 0 });
            self.set_alarm(node);
        }
        let mut node = first as usize;
        for spec in &scenario.nodes {
            for name in spec.names() {
                if let Some(availability) = spec.availability {
                    self.schedule_presence(&name, availability);
                }
                node += 1;
            }
        }
        assert_eq!(node, self.nodes.len(), "every node has its place");
    }

    /// What a node listens to from the start.
    pub(super) fn subscribe_to_own(&mut self, node: u32) {
        let it = self.node(node);
        for filter in it.role.filters() {
            it.client.wish(Want::Ours(filter), Wish::Subscribe, 0);
        }
    }

    /// A device that is not always there loses its power, as far as others can tell.
    fn schedule_presence(&mut self, name: &str, availability: Availability) {
        let mut dice = Dice::of(self.seed, name, "availability");
        let mut at = 0;
        let mut up = true;
        let mut first = true;
        while at < self.until_us {
            let stay = match availability {
                Availability::Cycle { on, off, phase, spread } => {
                    let (on, off) = (on.micros(), off.micros());
                    let period = (on + off).max(1);
                    let whole = if up { on } else { off };
                    if first {
                        let phase = phase.micros() + dice.between(0, spread.micros());
                        let phase = phase % period;
                        if phase < on {
                            on - phase
                        } else {
                            up = false;
                            self.presence(0, name, up);
                            period - phase
                        }
                    } else {
                        whole
                    }
                }
                Availability::Churn { mean_up, mean_down } => {
                    let mean = if up { mean_up } else { mean_down };
                    exponential(&mut dice, mean.micros())
                }
            };
            first = false;
            at = at.saturating_add(stay.max(1_000));
            up = !up;
            self.presence(at, name, up);
        }
    }

    fn presence(&mut self, at: u64, name: &str, up: bool) {
        let nodes = name.to_owned();
        let blow = if up {
            Blow::Up { nodes }
        } else {
            let (memory, silence) = (crate::Memory::Kept, crate::fault::Silence::Silent);
            Blow::Down { nodes, memory, silence }
        };
        self.queue.push(at, Class::Fault, BROKER, Event::Blow(Box::new(blow)));
    }
}

fn exponential(dice: &mut Dice, mean_us: u64) -> u64 {
    (-(1.0 - dice.unit()).ln() * mean_us as f64) as u64
}

/// What is needed to make nodes.
struct Plan<'a> {
    scenario: &'a Scenario,
    devices: BTreeMap<String, Arc<Device>>,
    /// What proplets have in common: those that can be restarted, and the others.
    kept: Arc<agent::Config>,
    unread: Arc<agent::Config>,
    /// Nodes outside, by place, with the longest window that they are given.
    outside: Vec<(u32, OnFailure, Option<u64>)>,
}

impl<'a> Plan<'a> {
    fn new(scenario: &'a Scenario, classes: &BTreeMap<String, Device>) -> Self {
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
            outside: vec![],
        }
    }

    fn nodes(&mut self, initial: Offer) -> Nodes {
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
        let mut services: Vec<Node> = Vec::with_capacity(FIRST as usize);
        for (name, role) in SERVICES.into_iter().zip([
            Role::Broker,
            Role::manager(limits),
            Role::coordinator(rules, averaging),
            Role::model_server(initial, library, self.records("model-server", None)),
            Role::Operator(Box::new(Host::new(Operator::new(script), Records::NeverRead))),
        ]) {
            let device = self.device(None);
            services.push(self.node(name.to_owned(), role, device, &ClockSpec::default()));
        }
        assert_eq!([BROKER, MANAGER, COORDINATOR, MODEL_SERVER, OPERATOR], [0, 1, 2, 3, 4]);
        let mut crowd: Vec<Node> = Vec::with_capacity(count + 1);
        if !self.scenario.sessions.is_empty() {
            let role = Role::sessions(self.records(SESSIONS, None));
            let device = self.device(None);
            crowd.push(self.node(SESSIONS.to_owned(), role, device, &ClockSpec::default()));
        }
        for spec in &self.scenario.nodes {
            for (i, name) in spec.names().into_iter().enumerate() {
                let node = self.own_node(spec, i, name, FIRST as usize + crowd.len());
                crowd.push(node);
            }
        }
        Nodes::new(services, crowd)
    }

    fn own_node(&mut self, spec: &NodeSpec, i: usize, name: String, place: usize) -> Node {
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
        let mut node = self.node(name, role, self.device(spec.device.as_ref()), &spec.clock);
        node.fidelity = spec.fidelity.as_deref().unwrap_or("model").into();
        let data = spec.data.as_ref();
        node.data = data.map(|data| data.replace("{i}", &i.to_string()).into());
        node
    }

    fn node(&self, name: String, role: Role, device: Arc<Device>, clock: &ClockSpec) -> Node {
        let seed = self.scenario.simulation.seed;
        Node {
            role,
            client: Client::default(),
            clock: Clock::new(self.scenario.simulation.epoch, clock),
            device,
            fidelity: "model".into(),
            data: None,
            seed: Dice::of(seed, &name, "tasks").roll(),
            life: 0,
            alive: true,
            alarm: Alarm::default(),
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
