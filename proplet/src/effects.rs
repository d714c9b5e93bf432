//! What the shell does about the agent's effects: it runs guests, and looks at its own process.

mod bench;
mod measure;
mod vouch;

use std::{collections::BTreeMap, sync::Arc};

use agent::{
    Agent, BaseModel, Effect, Failure, Finished, Note, Outcome, Report, RunMetrics, Variates,
};
use protocol::{
    TaskId,
    message::{FailureCode, TaskStart},
};
use service::{Effects, Gate, StoreError};
use tokio::{
    sync::{Semaphore, mpsc},
    task,
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use bench::Bench;
use measure::Meter;

use crate::{traces::RunTraces, watching::Watching};

/// Pieces of updates that are read, but not handed to the agent, at once.
const READS_MAX: usize = 4;

/// The hands of one agent.
#[derive(Debug)]
pub(crate) struct Shell {
    bench: Arc<Bench>,
    /// Where pieces wait until the broker takes them.
    gate: Gate,
    /// However many updates are asked for, few pieces are read at once.
    reading: Arc<Semaphore>,
    /// By task and attempt; a token that is cancelled belongs to a run that has ended.
    runs: BTreeMap<(TaskId, u32), CancellationToken>,
    /// Ends every run when the shell is dropped.
    all_runs: DropGuard,
    meter: Meter,
    connections: u64,
    reports: mpsc::Sender<Report>,
    /// Cancelled when the agent has said all it has to say.
    over: CancellationToken,
    watching: Watching,
    traces: RunTraces,
}

impl Shell {
    pub(crate) fn new(
        bench: Bench,
        gate: Gate,
        (watching, traces): (Watching, RunTraces),
        (reports, over): (mpsc::Sender<Report>, CancellationToken),
    ) -> Self {
        Self {
            bench: Arc::new(bench),
            gate,
            reading: Arc::new(Semaphore::new(READS_MAX)),
            runs: BTreeMap::new(),
            all_runs: CancellationToken::new().drop_guard(),
            meter: Meter::start(),
            connections: 0,
            reports,
            over,
            watching,
            traces,
        }
    }

    fn run(
        &mut self,
        mut start: Box<TaskStart>,
        (model, variates): (Option<BaseModel>, Option<Box<Variates>>),
        report: &mpsc::Sender<Report>,
    ) {
        let (task, attempt) = (start.id.clone(), start.attempt);
        self.runs.retain(|_, token| !token.is_cancelled());
        let cancel = self.all_runs.token().child_token();
        self.runs.insert((task.clone(), attempt), cancel.clone());
        let (bench, trace) = (Arc::clone(&self.bench), self.traces.begin(&mut start));
        let run = task::spawn({
            let cancel = cancel.clone();
            async move { bench.run(start, (model, variates), cancel, trace).await }
        });
        let (report, runs) = (report.clone(), self.watching.runs());
        task::spawn(async move {
            let (outcome, metrics) =
                run.await.unwrap_or_else(|why| (broke(&why), RunMetrics::default()));
            cancel.cancel();
            runs.note(&metrics);
            let finished = Finished { task, attempt, outcome, metrics };
            // Nobody listens any more only when the proplet is gone.
            let _ = report.send(Report::Finished(Box::new(finished))).await;
        });
    }
}

impl Shell {
    /// Reads a piece once there is room for it in the transport.
    fn read_chunk(
        &self,
        effect: Effect,
        report: mpsc::Sender<Report>,
    ) -> impl Future<Output = ()> + use<> {
        let (gate, reading) = (self.gate.clone(), Arc::clone(&self.reading));
        let storage = self.bench.storage.clone();
        async move {
            let Ok(_permit) = reading.acquire().await else { return };
            gate.pass().await;
            let (sender, mut read) = mpsc::channel(1);
            storage.perform(effect, sender);
            if let Some(read) = read.recv().await {
                // Nobody listens any more only when the proplet is gone.
                let _ = report.send(read).await;
            }
        }
    }
}

impl Effects<Agent> for Shell {
    fn perform(&mut self, effect: Effect, report: &mpsc::Sender<Report>) {
        match effect {
            Effect::Run { start, model, variates } => self.run(start, (model, variates), report),
            Effect::Cancel { task, attempt } => {
                if let Some(token) = self.runs.remove(&(task, attempt)) {
                    token.cancel();
                }
            }
            Effect::Pack { .. }
            | Effect::Encode(_)
            | Effect::Begin(_)
            | Effect::Store { .. }
            | Effect::Finish(_)
            | Effect::Abandon(_)
            | Effect::Hold(_)
            | Effect::Release(_)
            | Effect::Drop(_) => self.bench.storage.perform(effect, report.clone()),
            Effect::ReadChunk { .. } => {
                task::spawn(self.read_chunk(effect, report.clone()));
            }
            Effect::Measure => {
                if let Some(measurement) = self.meter.measure() {
                    send(report, Report::Measured(measurement));
                }
            }
            Effect::Stopped => self.over.cancel(),
            Effect::Note(note) => {
                self.watching.note(&note);
                self.traces.note(&note);
                log(&note);
            }
        }
    }

    fn storage(&mut self, why: Option<&StoreError>) {
        self.watching.standing.send_modify(|standing| standing.storage(why));
    }

    fn connection(&mut self, connected: bool) {
        self.watching.standing.send_modify(|standing| standing.connection(connected));
        if connected {
            self.connections += 1;
        } else {
            send(&self.reports, Report::Lost { connection: self.connections });
        }
    }
}

/// Never waits: the driver that empties the queue is the one that calls.
fn send(reports: &mpsc::Sender<Report>, report: Report) {
    if let Err(mpsc::error::TrySendError::Full(report)) = reports.try_send(report) {
        let reports = reports.clone();
        task::spawn(async move { reports.send(report).await });
    }
}

fn log(note: &Note) {
    match note {
        Note::Started { .. }
        | Note::Completed { .. }
        | Note::Superseded { .. }
        | Note::Accepted { .. }
        | Note::Fetching { .. }
        | Note::Fetched { .. }
        | Note::Offered { .. }
        | Note::Sending { .. } => tracing::info!("{note}"),
        Note::Failed { .. } | Note::Rejected { .. } | Note::Unreadable { .. } => {
            tracing::warn!("{note}");
        }
    }
}

/// The shell's own thread broke, not the guest.
fn broke(why: &task::JoinError) -> Outcome {
    let message = format!("the device could not run the job: {why}");
    Outcome::Failed(Failure { code: FailureCode("host".to_owned()), message })
}
