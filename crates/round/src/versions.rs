//! Which model versions exist: the last one made here, the newest one shown, and what is known of
//! their shapes.

use std::{collections::BTreeMap, time::Duration};

use protocol::{ModelLine, ModelUri, ModelVersion, Timestamp, message::ModelLatest};

use crate::{Base, values::forget_values};

/// Lines that are counted.
const LINES_MAX: usize = 10_000;
/// Recent models of a line that are remembered, so that a round on them need not fetch one.
const BASES_MAX: usize = 16;
const REPEAT_MIN: Duration = Duration::from_secs(1);
const REPEAT_MAX: Duration = Duration::from_secs(30);
/// Publications after which silence is worth a word.
const ATTEMPTS_QUIET: u32 = 4;

/// The version counters. Never hand out a version twice, whatever the model server forgets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Versions {
    lines: BTreeMap<ModelLine, Line>,
}

/// What is known of one line.
#[derive(Clone, Debug, Default)]
struct Line {
    made: Option<ModelVersion>,
    shown: Option<ModelLatest>,
    bases: BTreeMap<ModelVersion, Base>,
}

/// When to publish again what the model server has not shown yet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Repetition {
    next: Option<Timestamp>,
    attempts: u32,
}

impl Versions {
    pub(crate) fn restore(&mut self, line: ModelLine, made: ModelVersion) {
        self.lines.entry(line).or_default().made = Some(made);
    }

    /// What the model server shows as the newest of a line; unknown until it has been heard since
    /// the start of this process, since the state may have been lost with versions on it.
    pub(crate) fn shown(&self, line: &ModelLine) -> Option<&ModelLatest> {
        self.lines.get(line)?.shown.as_ref()
    }

    /// The last word counts, not the highest: a broker that outlived another run first tells of
    /// that run's newest version, which the model server of this one does not have.
    pub(crate) fn show(&mut self, latest: ModelLatest) {
        let line = latest.topic.line.clone();
        if self.lines.len() < LINES_MAX || self.lines.contains_key(&line) {
            self.lines.entry(line).or_default().shown = Some(latest);
        }
    }

    /// The next version of a line, if it is known what is there already.
    pub(crate) fn next(&self, line: &ModelLine) -> Option<ModelUri> {
        let known = self.lines.get(line)?;
        let shown = known.shown.as_ref()?.version;
        let version = known.made.map_or(shown, |made| made.max(shown)).next();
        Some(ModelUri { line: line.clone(), version })
    }

    /// This version is taken, from now on.
    pub(crate) fn take(&mut self, uri: &ModelUri) {
        self.lines.entry(uri.line.clone()).or_default().made = Some(uri.version);
    }

    pub(crate) fn base(&self, uri: &ModelUri) -> Option<&Base> {
        self.lines.get(&uri.line)?.bases.get(&uri.version)
    }

    pub(crate) fn learn(&mut self, uri: &ModelUri, base: Base) {
        let bases = &mut self.lines.entry(uri.line.clone()).or_default().bases;
        bases.insert(uri.version, base);
        forget_values(bases);
        while bases.len() > BASES_MAX {
            bases.pop_first();
        }
    }
}

impl Repetition {
    /// Something was published just now. What waits for its repetition waits no longer for it.
    pub(crate) fn begin(&mut self, now: Timestamp) {
        let soon = now + REPEAT_MIN;
        self.attempts = 1;
        self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
    }

    /// Nothing is left to publish.
    pub(crate) fn end(&mut self) {
        *self = Self::default();
    }

    pub(crate) const fn next(&self) -> Option<Timestamp> {
        self.next
    }

    /// Whether it is time; if so, the next time is twice as far away.
    pub(crate) fn is_due(&mut self, now: Timestamp) -> bool {
        if self.next.is_none_or(|next| now < next) {
            return false;
        }
        let delay = REPEAT_MIN.saturating_mul(1 << self.attempts.min(5));
        self.next = Some(now + delay.min(REPEAT_MAX));
        self.attempts += 1;
        true
    }

    /// How often it was said, once that is worth a word.
    pub(crate) const fn overdue(&self) -> Option<u32> {
        if self.attempts > ATTEMPTS_QUIET { Some(self.attempts) } else { None }
    }
}
