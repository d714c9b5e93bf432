//! What the coordinator does beside speaking: averaging, off the event loop, and logging.

use std::sync::Arc;

use aggregate::Strategy;
use protocol::{FailReason, OpenError};
use round::{Effect, Job, Note, Report, Rounds, average};
use service::Effects;
use tokio::{
    sync::{Semaphore, mpsc},
    task,
};

use crate::tally::Tally;

/// Rounds that are averaged at once; each holds a second copy of its updates meanwhile.
const AT_ONCE_MAX: usize = 2;

/// Does what the core asks for.
#[derive(Debug)]
pub(crate) struct Averaging {
    strategy: &'static Strategy,
    permits: Arc<Semaphore>,
    tally: Tally,
}

impl Averaging {
    pub(crate) fn new(strategy: &'static Strategy) -> Self {
        let permits = Arc::new(Semaphore::new(AT_ONCE_MAX));
        Self { strategy, permits, tally: Tally::default() }
    }

    pub(crate) const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// If the process ends meanwhile, the core asks again at the next start.
    fn average(&self, job: Job, reports: mpsc::Sender<Report>) {
        let (strategy, permits) = (self.strategy, Arc::clone(&self.permits));
        tokio::spawn(async move {
            let round = job.round.clone();
            let _permit = permits.acquire().await;
            let report = task::spawn_blocking(move || average(strategy, &job)).await;
            let report = report.unwrap_or_else(|panic| Report::AggregationFailed {
                round,
                reason: FailReason::Aggregation,
                error: panic.to_string(),
            });
            if reports.send(report).await.is_err() {
                tracing::debug!("averaged for nobody: the coordinator has stopped");
            }
        });
    }
}

impl Effects<Rounds> for Averaging {
    fn perform(&mut self, effect: Effect, report: &mpsc::Sender<Report>) {
        match effect {
            Effect::Aggregate(job) => self.average(job, report.clone()),
            Effect::Note(note) => {
                self.tally.count(&note);
                log(&note);
            }
        }
    }

    fn unreadable(&mut self, _why: &OpenError) {
        self.tally.count_unreadable();
    }
}

fn log(note: &Note) {
    match note {
        Note::Opened { round, base, participants, k, deadline } => {
            tracing::info!(%round, %base, ?participants, k, %deadline, "round opened");
        }
        Note::StartRefused { round, what } => tracing::warn!(%round, what, "start not taken"),
        Note::Accepted { round, proplet, num_samples } => {
            tracing::info!(%round, %proplet, num_samples, "update accepted");
        }
        Note::Rejected { reason, round, proplet, what } => {
            let round = round.as_ref().map(tracing::field::display);
            let proplet = proplet.as_ref().map(tracing::field::display);
            tracing::warn!(round, proplet, %reason, what, "update rejected");
        }
        Note::NoRoom { round, proplet, kept_len } => {
            tracing::warn!(%round, %proplet, kept_len, "no memory for an update; it has to wait");
        }
        Note::Absent { round, proplet } => {
            tracing::info!(%round, %proplet, "participant will not contribute");
        }
        Note::Closed { round, counted } => tracing::info!(%round, counted, "round closed"),
        Note::Made { round, version, digest } => {
            tracing::info!(%round, %version, %digest, "model made");
        }
        Note::Unconfirmed { round, version, attempts, shown } => {
            let shown = shown.map(|shown| shown.0);
            tracing::warn!(
                %round, %version, attempts, shown,
                "the model server does not show the model; if the newest that it shows is older than \
                 the one before this, it has lost its state directory, and needs it back"
            );
        }
        Note::VersionTaken { round, version, ours, theirs } => tracing::error!(
            %round, %version, %ours, %theirs,
            "somebody else published this version; publishing ours as the next one"
        ),
        Note::Complete { round, version, num_updates, total_samples } => {
            tracing::info!(%round, %version, num_updates, total_samples, "round complete");
        }
        Note::Failed { round, reason, counted, error } => {
            tracing::warn!(%round, %reason, counted, error, "round failed");
        }
    }
}
