//! A world out of its scenario.

use std::{collections::BTreeSet, sync::Arc};

use lineage::Offer;
use protocol::ModelVersion;

use super::{
    Event, Setup, SetupError, World,
    halves::{Outbox, Part},
    peers::{Outside, Peers},
    plan::Plan,
    tasks::Tasks,
    watch::Watcher,
};
use crate::{
    Availability, Dice, Fault, Scenario,
    broker::{Answer, Broker, Want, Weather},
    client::Wish,
    fault::Blow,
    network::Network,
    queue::{Class, Queue},
    trace::Chain,
};

/// Where the services stand among the nodes.
pub(crate) const BROKER: u32 = 0;
pub(crate) const MANAGER: u32 = 1;
pub(crate) const COORDINATOR: u32 = 2;
pub(crate) const MODEL_SERVER: u32 = 3;
pub(crate) const OPERATOR: u32 = 4;
/// The first that is not one of these. With sessions, it is their part of the coordinator.
pub(crate) const FIRST: u32 = 5;

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
