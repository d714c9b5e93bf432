//! Proplets whose tasks a program of their own computes: a process, a container, whatever speaks the
//! co-simulation protocol.
//!
//! The proplet is the real agent in the world. A task goes to its program as the event `task_start`
//! at the program's own time, which counts what it has computed; the program is advanced until its
//! `task_done`, and the time between the two is what the task takes. Nothing else reaches it, so
//! running it ahead shows nowhere.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use agent::{Failure, GuestOutput, Outcome};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use cosim::harness::AGENT;
use serde_json::{Value, json};
use sim::{Job, OnFailure, Peer, PeerError, PeerEvent, Ran, Scenario};
use tokio_util::sync::CancellationToken;

use super::guests::{failed, failure};

/// To the program: task, attempt, env, args, model, seed and the device's time.
const START: &str = "task_start";
/// From the program: `stdout`, and what the task wrote as `update`, base64; or `failed`.
const DONE: &str = "task_done";
/// The longest task, by the program's own time: as for guests.
const TASK_US_MAX: u64 = 300_000_000;

/// Every such program, by its proplet.
#[derive(Default)]
pub(super) struct Workers {
    workers: BTreeMap<String, Mutex<Worker>>,
    lost: Mutex<Vec<(OnFailure, PeerError)>>,
    /// Ends the run.
    broken: CancellationToken,
}

struct Worker {
    peer: Box<dyn Peer>,
    policy: OnFailure,
    /// How far it is advanced at a time, as long as it does not say when it acts next.
    step_us: u64,
    now_us: u64,
}

impl Workers {
    pub(super) fn new(
        scenario: &Scenario,
        mut peers: BTreeMap<String, Box<dyn Peer>>,
        broken: CancellationToken,
    ) -> Self {
        let mut workers = BTreeMap::new();
        for spec in &scenario.nodes {
            let step = spec.step.unwrap_or(scenario.simulation.quantum);
            for node in spec.names() {
                let Some(peer) = peers.remove(&node) else { continue };
                let (policy, step_us) = (spec.on_failure, step.micros().max(1));
                workers.insert(node, Mutex::new(Worker { peer, policy, step_us, now_us: 0 }));
            }
        }
        Self { workers, lost: Mutex::default(), broken }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// Programs that were lost, in the order of their proplets; an error if the run must not go on
    /// without one of them.
    pub(super) fn lost(&self) -> Result<Vec<PeerError>, PeerError> {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone();
        lost.sort_by(|(_, a), (_, b)| a.node.cmp(&b.node));
        match lost.iter().find(|(policy, _)| *policy == OnFailure::Stop) {
            Some((_, why)) => Err(why.clone()),
            None => Ok(lost.into_iter().map(|(_, why)| why).collect()),
        }
    }

    pub(super) fn run(&self, job: &Job) -> Ran {
        let Some(worker) = self.workers.get(&*job.node) else {
            return failed(failure("container", format!("{} has no program", job.node)));
        };
        let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
        match worker.compute(job) {
            Ok(ran) => ran,
            Err(why) => {
                let said = failed(failure("container", &why));
                self.lose(worker.policy, why);
                said
            }
        }
    }

    /// Only the first fault of a program is told: after it, it is no longer there.
    fn lose(&self, policy: OnFailure, why: PeerError) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.iter().all(|(_, known)| known.node != why.node) {
            lost.push((policy, why));
        }
        if policy == OnFailure::Stop {
            self.broken.cancel();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in self.workers.values_mut() {
            worker.get_mut().unwrap_or_else(PoisonError::into_inner).peer.shutdown();
        }
    }
}

impl Worker {
    fn compute(&mut self, job: &Job) -> Result<Ran, PeerError> {
        let begun_us = self.now_us;
        let mut events = vec![start(job, begun_us)];
        let mut to_us = begun_us;
        loop {
            self.peer.begin(to_us, std::mem::take(&mut events))?;
            let done = self.peer.finish()?;
            self.now_us = to_us;
            if let Some(event) = done.events.into_iter().find(|event| event.kind == DONE) {
                let compute_us = event.time_us.saturating_sub(begun_us);
                return Ok(Ran { outcome: outcome(&event.payload), compute_us, fuel: None });
            }
            if to_us - begun_us >= TASK_US_MAX {
                let what = format!("a task took more than {} s", TASK_US_MAX / 1_000_000);
                return Ok(failed(failure("timeout", what)));
            }
            let next_us = done.next_us.unwrap_or_else(|| to_us.saturating_add(self.step_us));
            to_us = next_us.min(begun_us + TASK_US_MAX);
        }
    }
}

fn start(job: &Job, time_us: u64) -> PeerEvent {
    let model = job.model.as_ref().map(|model| {
        serde_json::from_slice(model)
            .unwrap_or_else(|_| json!({ "base64": BASE64_STANDARD.encode(model) }))
    });
    let payload = json!({
        "task": job.start.id, "attempt": job.start.attempt, "name": job.start.name,
        "env": job.start.env, "args": job.start.cli_args, "inputs": job.start.inputs,
        "model": model, "seed": job.seed, "now_us": job.now.as_micros(),
    });
    PeerEvent {
        time_us,
        kind: START.to_owned(),
        src: AGENT.to_owned(),
        dst: job.node.to_string(),
        size_bytes: job.model.as_ref().map_or(0, Bytes::len) as u64,
        payload,
    }
}

fn outcome(payload: &Value) -> Outcome {
    read(payload).unwrap_or_else(Outcome::Failed)
}

fn read(payload: &Value) -> Result<Outcome, Failure> {
    if let Some(why) = payload.get("failed") {
        let word = |key: &str, or: &str| why[key].as_str().unwrap_or(or).to_owned();
        return Ok(Outcome::Failed(failure(&word("code", "failed"), word("message", ""))));
    }
    let stdout = match payload.get("stdout") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let update_file = match payload.get("update").and_then(Value::as_str) {
        None => None,
        Some(text) => {
            let bytes = BASE64_STANDARD.decode(text);
            let bytes = bytes.map_err(|why| failure("update", format!("not base64: {why}")))?;
            Some(bytes.into())
        }
    };
    Ok(Outcome::Ok(GuestOutput { stdout: stdout.into(), update_file, state: None }))
}
