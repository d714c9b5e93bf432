//! Seeds times faults times properties, over the real cores. A failure names the one plan that
//! replays it, with as few faults as still make it fail.

use std::sync::Arc;

use protocol::{PropletId, Tensor, Tensors, message::Model};

use crate::{
    Device, Dice, FAULTS, Fault, LinkSpec, NetworkModel, NetworkSpec, NoProgress, NoTrace,
    NodeSpec, OneHot, Participants, RoundSpec, RunError, Scenario, Setup, SetupError, Simulation,
    Span, World, fault::Scope,
};

/// How a swarm is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Swarm {
    pub first_seed: u64,
    pub seeds: u64,
    /// Faults in each run, at most.
    pub faults_max: u64,
    /// Whether every run is run twice, to compare its traces.
    pub replay: Replay,
}

/// How often each plan is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    Once,
    Twice,
}

/// One run, made from its seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub seed: u64,
    pub scenario: Scenario,
}

/// What came of a swarm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SwarmReport {
    pub runs: u64,
    pub rounds: u64,
    pub rounds_complete: u64,
    pub events: u64,
    pub failures: Vec<Failure>,
}

/// A run in which a property did not hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub seed: u64,
    pub property: String,
    pub what: String,
    /// With as few faults as still make it fail.
    pub scenario: Scenario,
}

/// How long faults may begin, and how long a run may take to end all the same.
const TROUBLE: Span = Span::secs(40);
const UNTIL: Span = Span::secs(1_800);

impl Swarm {
    /// Runs all; `each` is told after every run and may end the swarm.
    pub fn run(&self, mut each: impl FnMut(&SwarmReport) -> bool) -> SwarmReport {
        let mut report = SwarmReport::default();
        for seed in self.first_seed..self.first_seed.saturating_add(self.seeds) {
            let plan = Plan::of(seed, self.faults_max);
            match plan.run(self.replay) {
                Ok(ran) => report.add(&ran),
                Err((property, what)) => report.failures.push(plan.shrink(&property, what)),
            }
            report.runs += 1;
            if !each(&report) {
                break;
            }
        }
        report
    }
}

impl SwarmReport {
    fn add(&mut self, ran: &Ran) {
        self.rounds += ran.rounds;
        self.rounds_complete += ran.rounds_complete;
        self.events += ran.events;
    }
}

/// What a run without a failure was.
#[derive(Clone, Copy, Debug, Default)]
struct Ran {
    rounds: u64,
    rounds_complete: u64,
    events: u64,
}

impl Plan {
    /// The plan of a seed, with up to `faults_max` faults.
    pub fn of(seed: u64, faults_max: u64) -> Self {
        let mut dice = Dice::of(seed, "swarm", "plan");
        let proplets = dice.between(1, 8);
        let network = if dice.chance(0.2) { NetworkSpec::default() } else { network(&mut dice) };
        let nodes = NodeSpec {
            id: "proplet".to_owned(),
            count: u32::try_from(proplets).ok(),
            ..NodeSpec::default()
        };
        let names = nodes.names();
        let rounds = RoundSpec {
            repeat: u32::try_from(dice.between(2, 4)).unwrap_or(2),
            k_of_n: dice.chance(0.7).then(|| proplets.div_ceil(2) as usize),
            timeout: Span::secs(dice.between(5, 30)),
            participants: Participants::All,
            pause: Span::millis(dice.below(6_000)),
            ..RoundSpec::default()
        };
        // Rounds that last are there to be disturbed.
        let task_us = dice.between(100_000, 10_000_000);
        let device = Device { task_us, task_spread: 0.8, ..Device::default() };
        let services = ["manager", "coordinator", "model-server"];
        let scope = Scope { proplets: &names, services: &services, until: TROUBLE };
        let count = dice.between(0, faults_max);
        let faults = (0..count).map(|_| {
            let kind = dice.below(FAULTS.len() as u64) as usize;
            (FAULTS[kind].draw)(&mut dice, &scope)
        });
        let faults: Vec<Fault> = faults.collect();
        let mut scenario = Scenario {
            name: format!("swarm-{seed}"),
            simulation: Simulation { seed, until: UNTIL, ..Simulation::default() },
            network,
            nodes: vec![nodes],
            rounds: vec![rounds],
            faults,
            ..Scenario::default()
        };
        scenario.devices.insert(scenario.platform.server_device.clone(), device);
        scenario.platform.alive_every = Span::secs(dice.between(2, 15));
        scenario.platform.broker.inflight_max = dice.between(1, 50) as usize;
        Self { seed, scenario }
    }

    /// The plan itself, or the property that does not hold and what is wrong.
    pub fn check(&self) -> Result<(), (String, String)> {
        self.run(Replay::Twice).map(|_| ())
    }

    fn run(&self, replay: Replay) -> Result<Ran, (String, String)> {
        let (ran, hash) = self.run_once()?;
        match replay {
            Replay::Once => Ok(ran),
            Replay::Twice => {
                let (_, again) = self.run_once()?;
                if hash == again {
                    return Ok(ran);
                }
                Err(("replay".to_owned(), format!("trace {hash} became {again}")))
            }
        }
    }

    fn run_once(&self) -> Result<(Ran, String), (String, String)> {
        let broken = |what: String| ("runs".to_owned(), what);
        let mut world = self.world().map_err(|why| broken(why.to_string()))?;
        world.gather_evidence();
        let summary = world
            .run(&mut NoTrace, &mut NoProgress)
            .map_err(|why: RunError| broken(why.to_string()))?;
        let mut evidence = world.evidence();
        let one_hot = self.one_hot();
        let ids = self.proplets();
        let member = |id: PropletId| one_hot.member(&id).map(|member| (id, member));
        evidence.members = ids.filter_map(member).collect();
        let excused: Vec<_> = self.scenario.faults.iter().flat_map(Fault::excuses).collect();
        let mut broken_ones = evidence.violations().into_iter();
        if let Some((property, what)) = broken_ones.find(|(name, _)| !excused.contains(&name)) {
            return Err((property.to_owned(), what));
        }
        let ran = Ran {
            rounds: summary.rounds.len() as u64,
            rounds_complete: summary.rounds_complete() as u64,
            events: summary.events,
        };
        Ok((ran, summary.trace_sha256))
    }

    /// The plan's world, not yet run.
    pub fn world(&self) -> Result<World, SetupError> {
        let count = self.proplets().count();
        let zeros = Tensor::new(vec![count], vec![0.0; count]).expect("as many zeros as places");
        let tensors: Tensors = [("w".to_owned(), zeros)].into_iter().collect();
        let model = Model::new(protocol::ModelVersion(0), tensors);
        let model0 = serde_json::to_vec(&model).expect("models serialize");
        let setup = Setup {
            workload: Arc::new(self.one_hot()),
            peers: std::collections::BTreeMap::new(),
            model0: model0.into(),
            classes: std::collections::BTreeMap::new(),
            judge: None,
        };
        World::new(&self.scenario, setup)
    }

    fn one_hot(&self) -> OneHot {
        OneHot::new(self.proplets())
    }

    fn proplets(&self) -> impl Iterator<Item = PropletId> {
        let names = self.scenario.nodes.iter().flat_map(NodeSpec::names);
        names.map(|name| name.parse().expect("names of a swarm are ids"))
    }

    /// Leaves out one fault after the other, as long as the same property fails.
    fn shrink(&self, property: &str, what: String) -> Failure {
        let mut least = self.clone();
        let mut what = what;
        let mut place = 0;
        while place < least.scenario.faults.len() {
            let mut fewer = least.clone();
            fewer.scenario.faults.remove(place);
            match fewer.run(Replay::Twice) {
                Err((same, still)) if same == property => {
                    least = fewer;
                    what = still;
                }
                Ok(_) | Err(_) => place += 1,
            }
        }
        Failure { seed: self.seed, property: property.to_owned(), what, scenario: least.scenario }
    }
}

fn network(dice: &mut Dice) -> NetworkSpec {
    let default = LinkSpec {
        latency_us: dice.between(0, 50_000),
        jitter_us: dice.between(0, 100_000),
        loss_rate: if dice.chance(0.5) { 0.0 } else { dice.unit() * 0.2 },
        bandwidth_bps: dice.chance(0.3).then(|| dice.between(50_000, 10_000_000)),
        ..LinkSpec::default()
    };
    NetworkSpec { model: NetworkModel::Latency, default, ..NetworkSpec::default() }
}
