//! Tasks on proplets: computed for real, or as their workload has it, and ended in virtual time.
//!
//! A task that is slow to compute is put off until virtual time could reach its end; all that are
//! waiting by then are computed together, on several threads. What they give does not depend on
//! the threads, and they are put into the queue in the order in which they began.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use agent::{Failure, Finished, Outcome, Report, RunMetrics, Variates};
use bytes::Bytes;
use protocol::{
    TaskId,
    message::{FailureCode, TaskStart},
};
use serde_json::json;

use super::{Event, Node, World};
use crate::{
    Cost, Job, Ran, Workload,
    queue::{Class, Key},
    role::{Feed, Mail},
};

/// Tasks under way.
pub(super) struct Tasks {
    workload: Arc<dyn Workload>,
    threads: usize,
    next_token: u64,
    waiting: Vec<Waiting>,
    /// Virtual time must not pass this before what waits is computed.
    due_us: u64,
}

/// A task that has begun on a node, and of whose end nobody has heard.
#[derive(Debug)]
pub(super) struct Running {
    task: TaskId,
    attempt: u32,
    token: u64,
    begun_us: u64,
}

struct Waiting {
    node: u32,
    /// Taken when the task began, so that history does not show when it was computed.
    seq: u64,
    token: u64,
    begun_us: u64,
    pace: f64,
    job: Job,
}

/// The end of a run that is on its way.
#[derive(Debug)]
pub(super) struct End {
    ran: Ran,
    took_us: u64,
}

/// How soon a cancelled task has ended.
const CANCEL_US: u64 = 1_000;

impl Tasks {
    pub(super) fn new(workload: Arc<dyn Workload>, threads: usize) -> Self {
        Self { workload, threads, next_token: 0, waiting: vec![], due_us: u64::MAX }
    }

    /// Whether something has to be computed before time reaches `next_us`.
    pub(super) fn are_due(&self, next_us: u64) -> bool {
        !self.waiting.is_empty() && next_us > self.due_us
    }

    /// Whether tasks take no time to compute, and there are threads for other things.
    pub(super) fn leave_threads(&self) -> bool {
        self.threads > 1 && self.workload.cost() == Cost::Cheap
    }

    /// The tasks that there are, in place of which there are none.
    pub(super) fn take(&mut self) -> Self {
        let none = Self::new(Arc::clone(&self.workload), self.threads);
        std::mem::replace(self, none)
    }

    fn compute(&mut self) -> Vec<(Waiting, Ran)> {
        self.due_us = u64::MAX;
        let waiting = std::mem::take(&mut self.waiting);
        let threads = self.threads.min(waiting.len());
        if threads < 2 {
            let run = |waiting: Waiting| {
                let ran = self.workload.run(&waiting.job);
                (waiting, ran)
            };
            return waiting.into_iter().map(run).collect();
        }
        let next = AtomicUsize::new(0);
        // Each place is written once, by whichever thread takes it.
        let results: Vec<Mutex<Option<Ran>>> = waiting.iter().map(|_| Mutex::new(None)).collect();
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let place = next.fetch_add(1, Ordering::Relaxed);
                        let Some(it) = waiting.get(place) else { return };
                        let ran = self.workload.run(&it.job);
                        *results[place].lock().expect("nobody panics with it") = Some(ran);
                    }
                });
            }
        });
        let results = results.into_iter().map(|it| {
            let ran = it.into_inner().expect("nobody panics with it");
            ran.expect("every job was run")
        });
        waiting.into_iter().zip(results).collect()
    }
}

impl Node {
    fn end_run(&mut self, found: impl Fn(&Running) -> bool) -> Option<Running> {
        let place = self.running.iter().position(found)?;
        let taken = self.running.swap_remove(place);
        if self.running.is_empty() {
            self.running = vec![];
        }
        Some(taken)
    }
}

impl World {
    pub(super) fn begin_task(
        &mut self,
        node: u32,
        start: TaskStart,
        (model, variates): (Option<Bytes>, Option<Box<Variates>>),
    ) {
        let begun_us = self.now_us;
        let token = self.tasks.next_token;
        self.tasks.next_token += 1;
        let run = Running { task: start.id.clone(), attempt: start.attempt, token, begun_us };
        let runs = &mut self.node(node).running;
        if runs.is_empty() {
            runs.reserve_exact(1);
        }
        runs.push(run);
        self.trace(
            node,
            "task_begin",
            &[start.id.as_str().as_bytes()],
            || json!({ "task": start.id, "name": start.name, "attempt": start.attempt }),
        );
        let it = self.node(node);
        let seed = start.id.as_str().bytes().fold(it.seed, mix);
        let job = Job {
            node: Arc::clone(&it.name),
            fidelity: Arc::clone(&it.fidelity),
            data: it.data.clone(),
            seed: mix(seed, start.attempt.to_le_bytes()[0]),
            now: it.clock.at(begun_us),
            device: Arc::clone(&it.device),
            start,
            model,
            variates,
        };
        let (pace, start_us) = (it.pace, it.device.start_us);
        let seq = self.queue.next_seq(node);
        let waiting = Waiting { node, seq, token, begun_us, pace, job };
        match self.tasks.workload.cost() {
            Cost::Cheap => {
                let ran = self.tasks.workload.run(&waiting.job);
                self.schedule_end(waiting, ran);
            }
            Cost::Slow => {
                self.tasks.due_us = self.tasks.due_us.min(begun_us.saturating_add(start_us));
                self.tasks.waiting.push(waiting);
            }
        }
    }

    pub(super) fn finish_tasks(&mut self) {
        for (waiting, ran) in self.tasks.compute() {
            self.schedule_end(waiting, ran);
        }
    }

    fn schedule_end(&mut self, waiting: Waiting, ran: Ran) {
        let Waiting { node, seq, token, begun_us, pace, job } = waiting;
        let slowness = pace * job.device.slowness(job.seed);
        let compute_us = (ran.compute_us as f64 * slowness) as u64;
        let took_us = job.device.start_us.saturating_add(compute_us).saturating_add(1);
        let time_us = begun_us.saturating_add(took_us);
        let end = Box::new(End { ran, took_us });
        let key = Key { time_us, class: Class::Report, source: node, seq };
        self.queue.push_as(key, Event::TaskEnd { node, token, end });
    }

    pub(super) fn task_ended(&mut self, node: u32, token: u64, end: End) {
        let run = self.node(node).end_run(|run| run.token == token);
        let Some(Running { task, attempt, .. }) = run else { return };
        let End { ran, took_us } = end;
        let Ran { outcome, fuel, .. } = ran;
        let it = self.node(node);
        it.energy_j += it.device.active_w * took_us as f64 / 1e6;
        it.energy_j += it.device.j_per_mfuel * fuel.unwrap_or_default() as f64 / 1e6;
        let said: Bytes = match &outcome {
            Outcome::Ok(output) => output.stdout.clone(),
            Outcome::Packed(packed) => packed.blob.sha256().to_string().into(),
            Outcome::Failed(failure) => failure.message.clone().into(),
        };
        self.trace(
            node,
            "task_end",
            &[task.as_str().as_bytes(), &said],
            || json!({ "task": task, "attempt": attempt, "took_us": took_us, "fuel": fuel }),
        );
        let wall_ms = took_us as f64 / 1e3;
        let metrics =
            RunMetrics { wall_ms, cpu_ms: wall_ms, fuel, module: "virtual", ..Default::default() };
        let finished = Finished { task, attempt, outcome, metrics };
        let report = Report::Finished(Box::new(finished));
        self.feed(node, Feed::Mail(Box::new(Mail::Agent(report))));
        self.check_battery(node);
    }

    pub(super) fn cancel_task(&mut self, node: u32, task: &TaskId, attempt: u32) {
        let taken = self.node(node).end_run(|run| run.task == *task && run.attempt == attempt);
        let Some(run) = taken else { return };
        self.computed(node, run.begun_us);
        let failure = Failure {
            code: FailureCode(FailureCode::CANCELLED.to_owned()),
            message: "the task was stopped".to_owned(),
        };
        let outcome = Outcome::Failed(failure);
        let wall_ms = (self.now_us + CANCEL_US - run.begun_us) as f64 / 1e3;
        let metrics =
            RunMetrics { wall_ms, cpu_ms: wall_ms, module: "virtual", ..Default::default() };
        let finished = Finished { task: task.clone(), attempt, outcome, metrics };
        let mail = Box::new(Mail::Agent(Report::Finished(Box::new(finished))));
        let life = self.node(node).life;
        let event = Event::Mail { node, life, mail };
        self.queue.push(self.now_us + CANCEL_US, Class::Report, node, event);
    }

    /// Forgets what ran on a node.
    pub(super) fn forget_tasks(&mut self, node: u32) {
        for run in std::mem::take(&mut self.node(node).running) {
            self.computed(node, run.begun_us);
        }
    }

    /// A task that did not come to its end took energy all the same.
    fn computed(&mut self, node: u32, begun_us: u64) {
        let took_us = self.now_us.saturating_sub(begun_us);
        let it = self.node(node);
        it.energy_j += it.device.active_w * took_us as f64 / 1e6;
    }
}

/// Spreads a byte over a number.
const fn mix(state: u64, byte: u8) -> u64 {
    let z = (state ^ byte as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 29)
}
