//! The durable form of a task's phase.

use std::{borrow::Cow, collections::BTreeMap};

use protocol::{PropletId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::task::{Active, End, Ended, JsonText, Outcome, Phase, Run, Runs, Stage, Waiting};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PhaseRecord<'a> {
    Pending,
    Active(BTreeMap<PropletId, RunRecord<'a>>),
    Waiting { last: PropletId, since: Timestamp, why: Cow<'a, str>, resume_at: Timestamp },
    Ended(EndedRecord<'a>),
}

#[derive(Serialize, Deserialize)]
pub(super) struct RunRecord<'a> {
    sent_at: Timestamp,
    since: Option<Timestamp>,
    outcome: Option<OutcomeRecord<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutcomeRecord<'a> {
    Completed(Cow<'a, str>),
    Failed { error: Cow<'a, str>, code: Option<Cow<'a, str>>, results: Option<Cow<'a, str>> },
    Interrupted(Cow<'a, str>),
}

#[derive(Serialize, Deserialize)]
pub(super) struct EndedRecord<'a> {
    end: EndRecord,
    /// JSON text.
    results: Option<Cow<'a, str>>,
    error: Option<Cow<'a, str>>,
    code: Option<Cow<'a, str>>,
    errors: BTreeMap<PropletId, Option<Cow<'a, str>>>,
    started_at: Timestamp,
    finished_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EndRecord {
    Completed,
    Failed,
    Interrupted,
}

impl<'a> PhaseRecord<'a> {
    pub(super) fn of(phase: &'a Phase) -> Self {
        match phase {
            Phase::Pending => Self::Pending,
            Phase::Active(active) => {
                let runs = active.runs.iter();
                Self::Active(runs.map(|(id, run)| (id.clone(), RunRecord::of(run))).collect())
            }
            Phase::Waiting(waiting) => Self::Waiting {
                last: waiting.last.clone(),
                since: waiting.since,
                why: Cow::Borrowed(&waiting.why),
                resume_at: waiting.resume_at,
            },
            Phase::Ended(ended) => Self::Ended(EndedRecord {
                end: match ended.end {
                    End::Completed => EndRecord::Completed,
                    End::Failed => EndRecord::Failed,
                    End::Interrupted => EndRecord::Interrupted,
                },
                results: ended.results.as_ref().map(text),
                error: borrowed(ended.error.as_ref()),
                code: borrowed(ended.code.as_ref()),
                errors: {
                    let errors = ended.errors.iter();
                    errors.map(|(on, error)| (on.clone(), borrowed(error.as_ref()))).collect()
                },
                started_at: ended.started_at,
                finished_at: ended.finished_at,
            }),
        }
    }

    pub(super) fn revive(self) -> Phase {
        match self {
            Self::Pending => Phase::Pending,
            Self::Active(runs) => {
                let runs = runs.into_iter().map(|(id, run)| (id, run.revive())).collect();
                Phase::Active(Active { runs: Runs::revive(runs) })
            }
            Self::Waiting { last, since, why, resume_at } => {
                let why = why.into_owned();
                Phase::Waiting(Box::new(Waiting { last, since, why, resume_at }))
            }
            Self::Ended(ended) => Phase::Ended(Box::new(Ended {
                end: match ended.end {
                    EndRecord::Completed => End::Completed,
                    EndRecord::Failed => End::Failed,
                    EndRecord::Interrupted => End::Interrupted,
                },
                results: ended.results.map(revived),
                error: ended.error.map(Cow::into_owned),
                code: ended.code.map(Cow::into_owned),
                errors: {
                    let errors = ended.errors.into_iter();
                    errors.map(|(on, error)| (on, error.map(Cow::into_owned))).collect()
                },
                started_at: ended.started_at,
                finished_at: ended.finished_at,
            })),
        }
    }
}

impl<'a> RunRecord<'a> {
    fn of(run: &'a Run) -> Self {
        let (since, outcome) = match &run.stage {
            Stage::Sent => (None, None),
            Stage::Held { since } => (Some(*since), None),
            Stage::Reported { since, outcome } => (Some(*since), Some(OutcomeRecord::of(outcome))),
        };
        Self { sent_at: run.sent_at, since, outcome }
    }

    fn revive(self) -> Run {
        let stage = match (self.since, self.outcome) {
            (None, _) => Stage::Sent,
            (Some(since), None) => Stage::Held { since },
            (Some(since), Some(outcome)) => {
                let outcome = Box::new(outcome.revive());
                Stage::Reported { since, outcome }
            }
        };
        Run::revive(stage, self.sent_at)
    }
}

impl<'a> OutcomeRecord<'a> {
    fn of(outcome: &'a Outcome) -> Self {
        match outcome {
            Outcome::Completed(results) => Self::Completed(text(results)),
            Outcome::Failed { error, code, results } => Self::Failed {
                error: Cow::Borrowed(error),
                code: borrowed(code.as_ref()),
                results: results.as_ref().map(text),
            },
            Outcome::Interrupted(why) => Self::Interrupted(Cow::Borrowed(why)),
        }
    }

    fn revive(self) -> Outcome {
        match self {
            Self::Completed(results) => Outcome::Completed(revived(results)),
            Self::Failed { error, code, results } => {
                let (error, code) = (error.into_owned(), code.map(Cow::into_owned));
                Outcome::Failed { error, code, results: results.map(revived) }
            }
            Self::Interrupted(why) => Outcome::Interrupted(why.into_owned()),
        }
    }
}

fn text(json: &JsonText) -> Cow<'_, str> {
    Cow::Borrowed(json.as_str())
}

fn borrowed(text: Option<&String>) -> Option<Cow<'_, str>> {
    text.map(|text| Cow::Borrowed(text.as_str()))
}

fn revived(text: Cow<'_, str>) -> JsonText {
    JsonText::revive(text.into_owned())
}
