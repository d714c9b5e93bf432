//! How long rounds take, and what in them, for Prometheus; and how their models do.

use std::collections::BTreeMap;

use protocol::RoundId;
use round::Note;
use service::figures::{Figures, Seconds, SecondsBy, labels};
use tokio::time::Instant;

/// Distributions of times. What was opened before the start of this process is not among them.
#[derive(Debug)]
pub(crate) struct Timings {
    /// From `opened` to `complete` or `failed`.
    rounds: SecondsBy,
    /// From `opened` to each update that is accepted.
    updates: Seconds,
    /// Making one model of the updates, without waiting for a turn.
    averages: Seconds,
    /// Writing a batch to a state file.
    commits: SecondsBy,
    opened: BTreeMap<RoundId, Instant>,
}

impl Timings {
    pub(crate) fn new(figures: &mut Figures) -> Self {
        Self {
            rounds: figures.seconds_by(
                "aileron_round_seconds",
                "From the opening of a round to its end, by outcome",
            ),
            updates: figures.seconds(
                "aileron_update_seconds",
                "From the opening of a round to each of its accepted updates",
            ),
            averages: figures.seconds("aileron_aggregation_seconds", "Making a model of updates"),
            commits: figures
                .seconds_by("aileron_commit_seconds", "Writing a batch to a state file, by file"),
            opened: BTreeMap::new(),
        }
    }

    /// Of a coordinator at which nobody looks.
    pub(crate) fn unseen() -> Self {
        Self::new(&mut Figures::default())
    }

    /// Where commits to the state file `name` are counted.
    pub(crate) fn commits(&self, name: &str) -> Seconds {
        self.commits.get_or_create_owned(&labels([("file", name)]))
    }

    /// Where averages are counted.
    pub(crate) fn averages(&self) -> Seconds {
        self.averages.clone()
    }

    pub(crate) fn note(&mut self, note: &Note) {
        match note {
            Note::Opened { round, .. } => {
                self.opened.insert(round.clone(), Instant::now());
            }
            Note::Accepted { round, .. } => {
                if let Some(opened) = self.opened.get(round) {
                    self.updates.observe(opened.elapsed().as_secs_f64());
                }
            }
            Note::Complete { round, .. } => self.ended(round, "complete"),
            Note::Failed { round, .. } => self.ended(round, "failed"),
            Note::StartRefused { .. }
            | Note::Rejected { .. }
            | Note::LeftOut { .. }
            | Note::Held { .. }
            | Note::Late { .. }
            | Note::NoRoom { .. }
            | Note::Receiving { .. }
            | Note::ReceptionFailed { .. }
            | Note::BadBase { .. }
            | Note::Absent { .. }
            | Note::Closed { .. }
            | Note::Made { .. }
            | Note::VersionTaken { .. }
            | Note::Unconfirmed { .. } => {}
        }
    }

    fn ended(&mut self, round: &RoundId, outcome: &str) {
        if let Some(opened) = self.opened.remove(round) {
            let outcome = labels([("outcome", outcome)]);
            self.rounds.get_or_create(&outcome).observe(opened.elapsed().as_secs_f64());
        }
    }
}
