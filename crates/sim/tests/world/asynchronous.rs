//! An asynchronous session among crashes, in virtual time: nothing is lost, nothing counts twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use agent::{GuestOutput, Outcome};
use protocol::{
    Letter as _, ModelVersion, PropletId, Tensors,
    ledger::{self, Claim, Member, Standing},
    message::{Model, Update},
};
use serde_json::json;
use sim::{
    Cost, Device, Dice, Evidence, Fault, Job, Kill, Memory, NoProgress, NoTrace, OneHot, Ran,
    Scenario, SessionSpec, Setup, Simulation, Slowdown, Span, Workload, World,
};

use crate::stage::{one_hot, scenario, setup, slow_network};

const ROUNDS: usize = 12;
const PROPLETS: u32 = 8;

/// The base model, and a one at the proplet's own place.
struct Keeping(OneHot);

impl Workload for Keeping {
    fn run(&self, job: &Job) -> Ran {
        let ran = self.0.run(job);
        let Outcome::Ok(GuestOutput { stdout, .. }) = &ran.outcome else { return ran };
        let mut update = Update::read(stdout, None).unwrap();
        let base = Model::read(job.model.as_ref().unwrap()).unwrap().tensors;
        let sums = update.update.flatten().iter().zip(base.flatten()).map(|(x, y)| x + y).collect();
        let sums: Vec<f64> = sums;
        update.update = Tensors::unflatten(&base.schema(), &sums).unwrap();
        let stdout = update.seal().payload;
        let outcome = Outcome::Ok(GuestOutput { stdout, update_file: None, state: None });
        Ran { outcome, ..ran }
    }

    fn cost(&self) -> Cost {
        Cost::Cheap
    }
}

fn story(seed: u64) -> Scenario {
    let mut dice = Dice::of(seed, "asynchronous", "plan");
    let mut scenario = Scenario {
        simulation: Simulation { seed, until: Span::secs(2_000), ..Simulation::default() },
        network: slow_network(),
        rounds: vec![],
        ..scenario(PROPLETS, 1)
    };
    let slowdown = Some(Slowdown::Pareto { alpha: 1.0, max: 50.0 });
    let device = Device { task_us: 300_000, slowdown, ..Device::default() };
    scenario.devices.insert("x86".to_owned(), device);
    let start = json!({
        "session_id": "s", "rounds": ROUNDS, "timeout_s": 20, "retries": 1000, "seed": seed,
        "asynchronous": {"buffer": 2, "concurrency": 6, "staleness_max": dice.between(1, 20)},
        "strategy": {"name": "fedbuff", "params": {"staleness_exponent": 0.0}},
        "selection": {"method": "random", "available_min": 6},
    });
    let start = start.as_object().unwrap().clone();
    scenario.sessions = vec![SessionSpec { at: Span::secs(1), start }];
    let victims = ["manager", "coordinator", "model-server", "sessions", "p-0", "p-1", "p-2"];
    for _ in 0..dice.between(0, 5) {
        let node = victims[dice.below(victims.len() as u64) as usize].to_owned();
        let at = Span::millis(dice.between(1_500, 20_000));
        let down = Some(Span::millis(dice.between(1, 4_000)));
        scenario.faults.push(Fault::Crash(Kill {
            node,
            at,
            down,
            state: Memory::Kept,
            power: false,
        }));
    }
    scenario
}

fn lived(scenario: &Scenario) -> (sim::Summary, Evidence) {
    let workload = Arc::new(Keeping(one_hot(scenario)));
    let mut world =
        World::new(scenario, Setup { workload, ..setup(Arc::new(sim::Timed)) }).unwrap();
    world.gather_evidence();
    let summary = world.run(&mut NoTrace, &mut NoProgress).unwrap();
    let evidence = world.evidence();
    (summary, evidence)
}

/// What each model adds to the one before is what its round says; and each update that was accepted
/// is in one.
fn is_exact(evidence: &Evidence, members: &OneHot, proplets: &[PropletId]) {
    let tensors =
        |version: u64| Model::read(&evidence.models[&ModelVersion(version)]).unwrap().tensors;
    let mut counted: BTreeMap<&PropletId, usize> = BTreeMap::new();
    let mut accepted: BTreeMap<&PropletId, usize> = BTreeMap::new();
    let mut versions = BTreeSet::new();
    for (round, heard) in &evidence.rounds {
        heard.accepted.iter().for_each(|it| *accepted.entry(it).or_default() += 1);
        let Some(done) = heard.completions.first() else { continue };
        let version = done.model_version.0;
        assert!(versions.insert(version), "two rounds made version {version}");
        let (after, before) = (tensors(version), tensors(version - 1).flatten());
        let added: Vec<f64> = after.flatten().iter().zip(before).map(|(x, y)| x - y).collect();
        let added = Tensors::unflatten(&after.schema(), &added).unwrap();
        let member = |id: &PropletId| {
            let (index, num_samples) = members.member(id).unwrap();
            let named = done.participants.contains(id);
            let standing = if named { Standing::Accepted } else { Standing::Refused };
            Member { index, num_samples, standing }
        };
        let all: Vec<Member> = proplets.iter().map(member).collect();
        let claim = Claim { num_updates: done.num_updates, total_samples: done.total_samples };
        let found = ledger::check(&all, &added, claim);
        found.unwrap_or_else(|wrong| panic!("{round} made {version}: {wrong:?}"));
        for id in proplets.iter().filter(|id| done.participants.contains(id)) {
            *counted.entry(id).or_default() += 1;
        }
    }
    assert_eq!(accepted, counted);
}

#[test]
fn an_asynchronous_session_is_exact_whatever_crashes() {
    let (mut late, mut crashes) = (0, 0);
    for seed in 0..40 {
        let scenario = story(seed);
        let names = scenario.nodes.iter().flat_map(sim::NodeSpec::names);
        let proplets: Vec<PropletId> = names.map(|name| name.parse().unwrap()).collect();
        let (summary, evidence) = lived(&scenario);
        assert_eq!(summary.rounds_complete(), ROUNDS, "seed {seed}: {:?}", summary.rounds);
        is_exact(&evidence, &one_hot(&scenario), &proplets);
        let ends = evidence.rounds.values().filter_map(|round| round.completions.first());
        late += ends.map(|complete| complete.late).sum::<usize>();
        crashes += scenario.faults.len();
        assert_eq!(lived(&scenario).0.trace_sha256, summary.trace_sha256, "seed {seed}");
    }
    assert!(late > 100 && crashes > 50, "{late} late updates, {crashes} crashes");
}
