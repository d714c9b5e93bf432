//! What the model server counts, for Prometheus.

use http_api::VitalsPort;
use lineage::{Note, Refusal};
use protocol::ModelLine;
use service::{
    Figures, Standing,
    figures::{Count, Counts, Labels, SecondsBy, labels},
};
use tokio::sync::watch;

/// Counts of what the core noted, and how the server stands.
#[derive(Debug)]
pub(crate) struct Watching {
    pub(crate) standing: watch::Sender<Standing>,
    written: Counts,
    written_bytes: Count,
    refused: Counts,
    chunks_refused: Count,
    damaged: Count,
    write_failures: Count,
    replayed: Count,
    commits: SecondsBy,
    /// Open as long as the server runs.
    _port: Option<VitalsPort>,
}

impl Watching {
    pub(crate) fn new(figures: &mut Figures) -> Self {
        Self {
            standing: watch::Sender::new(Standing::default()),
            written: figures.counts("aileron_models_written_total", "Models stored, by line"),
            written_bytes: figures.count("aileron_models_written_bytes_total", "Bytes of them"),
            refused: figures.counts("aileron_models_refused_total", "Models not taken"),
            chunks_refused: figures
                .count("aileron_chunks_refused_total", "Pieces of models not taken"),
            damaged: figures.count(
                "aileron_models_damaged_total",
                "Model files that were missing, or not what was written",
            ),
            write_failures: figures
                .count("aileron_model_write_failures_total", "Models that could not be written"),
            replayed: figures
                .count("aileron_models_published_again_total", "Models said again after a connect"),
            commits: figures
                .seconds_by("aileron_commit_seconds", "Writing a batch to a state file, by file"),
            _port: None,
        }
    }

    /// Of a server at which nobody looks.
    pub(crate) fn unseen() -> Self {
        Self::new(&mut Figures::default())
    }

    pub(crate) fn with_port(self, port: Option<VitalsPort>) -> Self {
        Self { _port: port, ..self }
    }

    /// Where commits are counted.
    pub(crate) fn commits(&self) -> service::figures::Seconds {
        self.commits.get_or_create_owned(&labels([("file", "models")]))
    }

    pub(crate) fn note(&self, line: &ModelLine, note: &Note) {
        match note {
            Note::Written { len, .. } => {
                self.written.get_or_create(&labels([("line", &line.to_string())])).inc();
                self.written_bytes.inc_by(*len);
            }
            Note::Refused { why, .. } => drop(self.refused.get_or_create(&reason(why)).inc()),
            Note::FetchFailed { .. } => {
                self.refused.get_or_create(&labels([("reason", "given_up")])).inc();
            }
            Note::FetchedBad { .. } => {
                self.refused.get_or_create(&labels([("reason", "no_model")])).inc();
            }
            Note::ChunkRefused { .. } => drop(self.chunks_refused.inc()),
            Note::Damaged { .. } | Note::Missing { .. } => drop(self.damaged.inc()),
            Note::WriteFailed { .. } => drop(self.write_failures.inc()),
            Note::Replayed { versions } => drop(self.replayed.inc_by(*versions as u64)),
            Note::Ready { .. }
            | Note::ScanFailed { .. }
            | Note::Adopted { .. }
            | Note::Stray { .. }
            | Note::Fetching { .. }
            | Note::Unshowable { .. }
            | Note::Shown { .. } => {}
        }
    }
}

fn reason(why: &Refusal) -> Labels {
    let word = match why {
        Refusal::Conflict => "conflict",
        Refusal::Gap { .. } => "gap",
        Refusal::TooLarge { .. } => "too_large",
        Refusal::Busy => "busy",
        Refusal::TooManyLines => "too_many_lines",
    };
    labels([("reason", word)])
}
