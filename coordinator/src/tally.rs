//! What has happened since the start of this process, counted.

use std::{collections::BTreeMap, fmt};

use http_api::Family;
use protocol::{FailReason, Rejection};
use round::Note;

/// Counts of what the core noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    opened: u64,
    starts_refused: u64,
    accepted: u64,
    rejected: BTreeMap<Rejection, u64>,
    versions_taken: u64,
    complete: u64,
    failed: BTreeMap<FailReason, u64>,
    unreadable: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, note: &Note) {
        match note {
            Note::Opened { .. } => self.opened += 1,
            Note::StartRefused { .. } => self.starts_refused += 1,
            Note::Accepted { .. } => self.accepted += 1,
            Note::Rejected { reason, .. } | Note::LeftOut { reason, .. } => {
                *self.rejected.entry(*reason).or_default() += 1
            }
            Note::VersionTaken { .. } => self.versions_taken += 1,
            Note::Complete { .. } => self.complete += 1,
            Note::Failed { reason, .. } => *self.failed.entry(*reason).or_default() += 1,
            Note::NoRoom { .. }
            | Note::Receiving { .. }
            | Note::ReceptionFailed { .. }
            | Note::BadBase { .. }
            | Note::Absent { .. }
            | Note::Held { .. }
            | Note::Late { .. }
            | Note::Closed { .. }
            | Note::Made { .. }
            | Note::Unconfirmed { .. } => {}
        }
    }

    pub(crate) const fn count_unreadable(&mut self) {
        self.unreadable += 1;
    }
}

impl Tally {
    /// As figures.
    pub(crate) fn families(&self) -> Vec<Family> {
        let counter = Family::counter;
        let reasons = |name, help, samples: Vec<(String, u64)>| Family {
            name,
            kind: "counter",
            help,
            samples: samples
                .into_iter()
                .map(|(reason, count)| (format!("{{reason=\"{reason}\"}}"), count))
                .collect(),
        };
        let rejected = self.rejected.iter().map(|(why, count)| (why.to_string(), *count));
        let failed = self.failed.iter().map(|(why, count)| (why.to_string(), *count));
        vec![
            counter("aileron_rounds_opened_total", "Rounds opened", self.opened),
            counter("aileron_rounds_complete_total", "Rounds that ended well", self.complete),
            reasons("aileron_rounds_failed_total", "Rounds that failed", failed.collect()),
            counter("aileron_starts_refused_total", "Starts not taken", self.starts_refused),
            counter("aileron_updates_accepted_total", "Updates counted", self.accepted),
            reasons("aileron_updates_rejected_total", "Updates not counted", rejected.collect()),
            counter(
                "aileron_versions_taken_total",
                "Versions that somebody else published",
                self.versions_taken,
            ),
            counter(
                "aileron_messages_unreadable_total",
                "Messages that could not be read",
                self.unreadable,
            ),
        ]
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { opened, starts_refused, accepted, versions_taken, complete, .. } = self;
        write!(f, "rounds opened {opened}, complete {complete}, starts refused {starts_refused}")?;
        write!(f, ", updates accepted {accepted}")?;
        for (reason, count) in &self.rejected {
            write!(f, ", rejected {reason} {count}")?;
        }
        for (reason, count) in &self.failed {
            write!(f, ", failed {reason} {count}")?;
        }
        write!(f, ", versions taken by others {versions_taken}")?;
        write!(f, ", unreadable messages {}", self.unreadable)
    }
}
