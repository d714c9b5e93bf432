//! The phases of a task's life, and what each knows.

use std::{collections::BTreeMap, time::Duration};

use protocol::{PropletId, Timestamp, message::TaskState};

use super::JsonText;

/// How long a proplet has to take a start before it is sent again; doubles each time.
const GRACE: Duration = Duration::from_secs(2);
const GRACE_MAX: Duration = Duration::from_secs(60);

/// The ways of a task's life. What is said of few tasks stands beside, so that a hundred thousand
/// that run take little room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Pending,
    Active(Active),
    Waiting(Box<Waiting>),
    Ended(Box<Ended>),
}

/// Sent to one proplet, or to many; ends when all have reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Active {
    pub(crate) runs: Runs,
}

/// Runs in the order of their proplets. They are all known from the start, and mostly there is
/// one: a list takes no more memory than that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runs(Box<[(PropletId, Run)]>);

/// One attempt on one proplet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) stage: Stage,
    pub(crate) sent_at: Timestamp,
    /// How often the start was sent again.
    pub(crate) resends: u32,
    /// Before this, not being held means nothing.
    pub(crate) resend_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nobody has said yet that it arrived.
    Sent,
    /// The proplet says that it has it.
    Held { since: Timestamp },
    /// The proplet has said what came of it.
    Reported { since: Timestamp, outcome: Box<Outcome> },
}

/// What came of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Completed(JsonText),
    Failed {
        error: String,
        code: Option<String>,
        results: Option<JsonText>,
    },
    /// Cut off, by an accident or by somebody.
    Interrupted(String),
}

/// Cut off, and to run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Where it ran; it may turn out that it still does.
    pub(crate) last: PropletId,
    pub(crate) since: Timestamp,
    pub(crate) why: String,
    /// Not before this.
    pub(crate) resume_at: Timestamp,
}

/// What a task came to; never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) end: End,
    pub(crate) results: Option<JsonText>,
    pub(crate) error: Option<String>,
    pub(crate) code: Option<String>,
    /// Where it ran, and what was wrong there.
    pub(crate) errors: Box<[(PropletId, Option<String>)]>,
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Completed,
    Failed,
    Interrupted,
}

impl Phase {
    /// The word for it. A task that waits to run again is shown as what happened to it.
    pub(crate) fn state(&self) -> TaskState {
        match self {
            Self::Pending => TaskState::Pending,
            Self::Active(active) if active.runs.values().all(|run| run.stage == Stage::Sent) => {
                TaskState::Scheduled
            }
            Self::Active(_) => TaskState::Running,
            Self::Waiting(_) => TaskState::Interrupted,
            Self::Ended(ended) => ended.end.state(),
        }
    }

    pub(crate) const fn runs(&self) -> Option<&Runs> {
        match self {
            Self::Active(active) => Some(&active.runs),
            Self::Pending | Self::Waiting(_) | Self::Ended(_) => None,
        }
    }
}

impl End {
    pub(crate) const fn state(self) -> TaskState {
        match self {
            Self::Completed => TaskState::Completed,
            Self::Failed => TaskState::Failed,
            Self::Interrupted => TaskState::Interrupted,
        }
    }
}

impl Run {
    fn new(stage: Stage, sent_at: Timestamp) -> Self {
        Self { stage, sent_at, resends: 0, resend_at: sent_at + GRACE }
    }

    /// As it was kept before a restart.
    pub(crate) fn revive(stage: Stage, sent_at: Timestamp) -> Self {
        Self::new(stage, sent_at)
    }

    pub(crate) const fn is_open(&self) -> bool {
        match self.stage {
            Stage::Sent | Stage::Held { .. } => true,
            Stage::Reported { .. } => false,
        }
    }

    /// When it began, as far as is known.
    pub(crate) const fn since(&self) -> Timestamp {
        match self.stage {
            Stage::Sent => self.sent_at,
            Stage::Held { since } | Stage::Reported { since, .. } => since,
        }
    }

    pub(super) fn resend(&mut self, now: Timestamp) {
        self.resends += 1;
        let wait = GRACE.saturating_mul(1 << self.resends.min(5)).min(GRACE_MAX);
        self.resend_at = now + wait;
    }
}

impl Runs {
    /// As they were kept before a restart.
    pub(crate) fn revive(runs: BTreeMap<PropletId, Run>) -> Self {
        Self(runs.into_iter().collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&PropletId, &Run)> {
        self.0.iter().map(|(proplet, run)| (proplet, run))
    }

    pub(crate) fn proplets(&self) -> impl Iterator<Item = &PropletId> {
        self.0.iter().map(|(proplet, _)| proplet)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Run> {
        self.0.iter().map(|(_, run)| run)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Run> {
        self.0.iter_mut().map(|(_, run)| run)
    }

    pub(crate) fn get(&self, on: &PropletId) -> Option<&Run> {
        self.place(on).map(|place| &self.0[place].1)
    }

    pub(crate) fn get_mut(&mut self, on: &PropletId) -> Option<&mut Run> {
        self.place(on).map(|place| &mut self.0[place].1)
    }

    fn place(&self, on: &PropletId) -> Option<usize> {
        self.0.binary_search_by(|(proplet, _)| proplet.cmp(on)).ok()
    }
}

impl Active {
    /// `on` in order.
    pub(super) fn sent(on: Vec<PropletId>, now: Timestamp) -> Self {
        let runs = on.into_iter().map(|proplet| (proplet, Run::new(Stage::Sent, now)));
        Self { runs: Runs(runs.collect()) }
    }

    pub(super) fn held(on: PropletId, since: Timestamp) -> Self {
        Self { runs: Runs([(on, Run::new(Stage::Held { since }, since))].into()) }
    }

    /// What it came to, if every proplet has reported.
    pub(super) fn ended(&self, by_proplet: bool, now: Timestamp) -> Option<Ended> {
        let mut outcomes = BTreeMap::new();
        for (proplet, run) in self.runs.iter() {
            match &run.stage {
                Stage::Sent | Stage::Held { .. } => return None,
                Stage::Reported { outcome, .. } => outcomes.insert(proplet, &**outcome),
            };
        }
        let started_at = self.runs.values().map(Run::since).min().unwrap_or(now);
        let error = |outcome: &Outcome| outcome.error().map(str::to_owned);
        Some(Ended {
            end: worst(outcomes.values().copied()),
            results: results(&outcomes, by_proplet),
            error: errors(&outcomes, by_proplet),
            code: outcomes.values().find_map(|outcome| outcome.code()),
            errors: outcomes.iter().map(|(at, outcome)| ((*at).clone(), error(outcome))).collect(),
            started_at,
            finished_at: now,
        })
    }
}

impl Outcome {
    fn error(&self) -> Option<&str> {
        match self {
            Self::Completed(_) => None,
            Self::Failed { error, .. } | Self::Interrupted(error) => Some(error),
        }
    }

    fn code(&self) -> Option<String> {
        match self {
            Self::Failed { code, .. } => code.clone(),
            Self::Completed(_) | Self::Interrupted(_) => None,
        }
    }

    fn results(&self) -> Option<&JsonText> {
        match self {
            Self::Completed(results) => Some(results),
            Self::Failed { results, .. } => results.as_ref(),
            Self::Interrupted(_) => None,
        }
    }
}

fn worst<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> End {
    outcomes.fold(End::Completed, |end, outcome| match (end, outcome) {
        (End::Failed, _) | (_, Outcome::Failed { .. }) => End::Failed,
        (End::Interrupted, _) | (_, Outcome::Interrupted(_)) => End::Interrupted,
        (End::Completed, Outcome::Completed(_)) => End::Completed,
    })
}

fn results(outcomes: &BTreeMap<&PropletId, &Outcome>, by_proplet: bool) -> Option<JsonText> {
    let mut given = outcomes
        .iter()
        .filter_map(|(at, outcome)| outcome.results().map(|text| (at.to_string(), text.clone())));
    if by_proplet {
        return Some(JsonText::object(&given.collect()));
    }
    given.next().map(|(_, text)| text)
}

fn errors(outcomes: &BTreeMap<&PropletId, &Outcome>, by_proplet: bool) -> Option<String> {
    let mut given = outcomes.iter().filter_map(|(at, it)| it.error().map(|text| (at, text)));
    if !by_proplet {
        return given.next().map(|(_, text)| text.to_owned());
    }
    let given: Vec<_> = given.map(|(at, text)| format!("{at}: {text}")).collect();
    (!given.is_empty()).then(|| given.join("; "))
}
