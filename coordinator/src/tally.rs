//! What has happened since the start of this process, counted.

use std::{collections::BTreeMap, fmt};

use protocol::{FailReason, Rejection};
use round::Note;
use service::figures::{Figures, Labels, labels};

/// Counts of what the core noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    opened: u64,
    starts_refused: u64,
    accepted: u64,
    samples: u64,
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
            Note::Accepted { num_samples, .. } => {
                self.accepted += 1;
                self.samples = self.samples.saturating_add(*num_samples);
            }
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
    pub(crate) fn show(&self, now: &mut Figures) {
        // All reasons are there from the start: what first appears with a count has, for whoever asks
        // how much it has grown, not grown at all.
        let rejected = by_reason(Rejection::ALL, &self.rejected);
        let failed = by_reason(FailReason::ALL, &self.failed);
        now.counted("aileron_rounds_opened_total", "Rounds opened", self.opened);
        now.counted("aileron_rounds_complete_total", "Rounds that ended well", self.complete);
        now.counted_by("aileron_rounds_failed_total", "Rounds that failed", failed);
        now.counted("aileron_starts_refused_total", "Starts not taken", self.starts_refused);
        now.counted("aileron_updates_accepted_total", "Updates counted", self.accepted);
        now.counted("aileron_samples_total", "Samples of the updates counted", self.samples);
        now.counted_by("aileron_updates_rejected_total", "Updates not counted", rejected);
        now.counted(
            "aileron_versions_taken_total",
            "Versions that somebody else published",
            self.versions_taken,
        );
        now.counted(
            "aileron_messages_unreadable_total",
            "Messages that could not be read",
            self.unreadable,
        );
    }
}

fn by_reason<R: Copy + Ord + fmt::Display>(
    all: &[R],
    counts: &BTreeMap<R, u64>,
) -> impl Iterator<Item = (Labels, u64)> {
    all.iter().map(|reason| {
        let count = counts.get(reason).copied().unwrap_or_default();
        (labels([("reason", &reason.to_string())]), count)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_told_before_it_has_been_one() {
        let mut tally = Tally::default();
        *tally.failed.entry(FailReason::AllAbsent).or_default() += 2;
        let mut now = Figures::default();
        tally.show(&mut now);
        let mut text = String::new();
        now.write(&mut text);
        for reason in Rejection::ALL {
            let line = format!("aileron_updates_rejected_total{{reason=\"{reason}\"}} 0\n");
            assert!(text.contains(&line), "{text}");
        }
        for reason in FailReason::ALL {
            let count = if *reason == FailReason::AllAbsent { 2 } else { 0 };
            let line = format!("aileron_rounds_failed_total{{reason=\"{reason}\"}} {count}\n");
            assert!(text.contains(&line), "{text}");
        }
    }
}
