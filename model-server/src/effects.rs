//! What the model server does beside speaking: files, on a thread of their own, and logging.

use std::collections::BTreeSet;

use lineage::{Effect, Lineage, Note, Report};
use protocol::ModelVersion;
use service::Effects;
use tokio::{
    sync::mpsc,
    task::{self, JoinHandle},
};

use crate::shelf::Shelf;

/// Hands file work to the thread that owns the files, in order.
#[derive(Debug)]
pub(crate) struct Librarian {
    /// Not bounded here: the core asks for a handful of loads and one write at a time.
    jobs: mpsc::UnboundedSender<(Effect, mpsc::Sender<Report>)>,
    worker: JoinHandle<()>,
    /// Versions that could not be written yet; said once.
    failing: BTreeSet<ModelVersion>,
}

impl Librarian {
    pub(crate) fn new(shelf: Shelf) -> Self {
        let (jobs, queue) = mpsc::unbounded_channel();
        let worker = task::spawn_blocking(move || work(&shelf, queue));
        Self { jobs, worker, failing: BTreeSet::new() }
    }

    /// Waits until what was begun is done.
    pub(crate) async fn finish(self) {
        drop(self.jobs);
        if let Err(why) = self.worker.await {
            tracing::error!(%why, "the thread that writes models has panicked");
        }
    }

    fn log(&mut self, note: &Note) {
        match note {
            Note::Ready { intact, damaged, newest } => {
                let newest = newest.map(|newest| newest.0);
                tracing::info!(intact, damaged, newest, "model files read");
            }
            Note::ScanFailed { error } => tracing::error!(error, "cannot read the model files"),
            Note::Missing { version } => tracing::error!(%version, "model file is missing"),
            Note::Damaged { version, what } => {
                tracing::error!(%version, what, "model file is damaged; moved aside");
            }
            Note::Adopted { version } => {
                tracing::warn!(%version, "model file without a record taken over");
            }
            Note::Stray { version } => {
                tracing::warn!(%version, "model file does not continue the line; left alone");
            }
            Note::Written { version, len, digest } => {
                if self.failing.remove(version) {
                    tracing::info!(%version, "models can be written again");
                }
                tracing::info!(%version, len, %digest, "model written");
            }
            Note::WriteFailed { version, error } => {
                if self.failing.insert(*version) {
                    tracing::error!(%version, error, "cannot write a model; trying again");
                }
            }
            Note::Refused { version, why } => tracing::warn!(%version, ?why, "model refused"),
            Note::Replayed { versions } => tracing::info!(versions, "models published again"),
        }
    }
}

impl Effects<Lineage> for Librarian {
    fn perform(&mut self, effect: Effect, report: &mpsc::Sender<Report>) {
        match effect {
            Effect::Note(note) => self.log(&note),
            Effect::Scan { .. }
            | Effect::Quarantine { .. }
            | Effect::Write { .. }
            | Effect::Load { .. } => {
                if self.jobs.send((effect, report.clone())).is_err() {
                    tracing::error!("the thread that writes models is gone");
                }
            }
        }
    }
}

fn work(shelf: &Shelf, mut queue: mpsc::UnboundedReceiver<(Effect, mpsc::Sender<Report>)>) {
    while let Some((effect, reports)) = queue.blocking_recv() {
        let Some(report) = perform(shelf, effect) else { continue };
        if reports.blocking_send(report).is_err() {
            tracing::debug!("file work done for nobody: the model server has stopped");
        }
    }
}

fn perform(shelf: &Shelf, effect: Effect) -> Option<Report> {
    match effect {
        Effect::Scan { unknown_from } => Some(match shelf.scan(unknown_from) {
            Ok(found) => Report::Scanned(found),
            Err(why) => Report::ScanFailed { error: why.to_string() },
        }),
        Effect::Quarantine { version } => {
            match shelf.quarantine(version) {
                Ok(aside) => tracing::warn!(%version, aside = %aside.display(), "moved aside"),
                Err(why) => tracing::error!(%version, %why, "cannot move a damaged model aside"),
            }
            None
        }
        Effect::Write { version, payload } => Some(match shelf.write(version, &payload) {
            Ok(()) => Report::Written { version },
            Err(why) => Report::WriteFailed { version, error: why.to_string() },
        }),
        Effect::Load { version } => {
            let content = shelf.read(version).map_err(|why| why.to_string());
            Some(Report::Loaded { version, content })
        }
        Effect::Note(_) => None,
    }
}
