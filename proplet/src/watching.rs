//! What the proplet counts, for Prometheus.

use agent::{Note, RunMetrics};
use http_api::VitalsPort;
use service::{
    Figures, Standing,
    figures::{Count, Counts, Seconds, labels},
};
use tokio::sync::watch;

/// Counts of what the core noted, and how the proplet stands.
#[derive(Debug)]
pub(crate) struct Watching {
    pub(crate) standing: watch::Sender<Standing>,
    tasks: Counts,
    failures: Counts,
    updates: Counts,
    fetched_bytes: Count,
    runs: Runs,
    commits: Seconds,
    /// Open as long as the proplet runs.
    _port: Option<VitalsPort>,
}

/// What single runs took. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    wall: Seconds,
    compile: Seconds,
    modules: Counts,
}

impl Watching {
    pub(crate) fn new(figures: &mut Figures) -> Self {
        Self {
            standing: watch::Sender::new(Standing::default()),
            tasks: figures.counts("aileron_tasks_total", "Tasks that ended, by outcome"),
            failures: figures.counts("aileron_task_failures_total", "Tasks that failed, by code"),
            updates: figures.counts("aileron_updates_total", "Updates, by the verdict on them"),
            fetched_bytes: figures
                .count("aileron_fetched_bytes_total", "Bytes of models and modules in pieces"),
            runs: Runs {
                wall: figures.seconds("aileron_task_seconds", "Wall time of a guest"),
                compile: figures
                    .seconds("aileron_compile_seconds", "Getting a module ready to be started"),
                modules: figures.counts(
                    "aileron_modules_total",
                    "Modules made ready, by where they came from: compiled, or a cache",
                ),
            },
            commits: figures.seconds("aileron_commit_seconds", "Writing a batch to the state file"),
            _port: None,
        }
    }

    /// Of a proplet at which nobody looks.
    pub(crate) fn unseen() -> Self {
        Self::new(&mut Figures::default())
    }

    pub(crate) fn with_port(self, port: Option<VitalsPort>) -> Self {
        Self { _port: port, ..self }
    }

    /// Where commits are counted.
    pub(crate) fn commits(&self) -> Seconds {
        self.commits.clone()
    }

    /// Where runs are counted.
    pub(crate) fn runs(&self) -> Runs {
        self.runs.clone()
    }

    pub(crate) fn note(&self, note: &Note) {
        let add = |counts: &Counts, label, value: &str| {
            counts.get_or_create(&labels([(label, value)])).inc();
        };
        match note {
            Note::Completed { .. } => add(&self.tasks, "outcome", "completed"),
            Note::Failed { failure, .. } => {
                add(&self.tasks, "outcome", "failed");
                add(&self.failures, "code", &failure.code.0);
            }
            Note::Superseded { .. } => add(&self.tasks, "outcome", "superseded"),
            Note::Accepted { .. } => add(&self.updates, "verdict", "accepted"),
            Note::Rejected { reason, .. } => add(&self.updates, "verdict", &reason.to_string()),
            Note::Fetched { blob, .. } => drop(self.fetched_bytes.inc_by(blob.bytes())),
            Note::Started { .. }
            | Note::Fetching { .. }
            | Note::Offered { .. }
            | Note::Sending { .. }
            | Note::Unreadable { .. } => {}
        }
    }
}

impl Runs {
    pub(crate) fn note(&self, took: &RunMetrics) {
        if took.module.is_empty() {
            // It never came so far.
            return;
        }
        self.wall.observe(took.wall_ms / 1e3);
        self.compile.observe(took.compile_ms / 1e3);
        self.modules.get_or_create(&labels([("from", took.module)])).inc();
    }
}
