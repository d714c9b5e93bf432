//! The durable form of a task's phase.

use std::collections::BTreeMap;

use protocol::{PropletId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::task::{Active, End, Ended, JsonText, Outcome, Phase, Run, Stage, Waiting};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PhaseRecord {
    Pending,
    Active(BTreeMap<PropletId, RunRecord>),
    Waiting { last: PropletId, since: Timestamp, why: String, resume_at: Timestamp },
    Ended(EndedRecord),
}

#[derive(Serialize, Deserialize)]
pub(super) struct RunRecord {
    sent_at: Timestamp,
    since: Option<Timestamp>,
    outcome: Option<OutcomeRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutcomeRecord {
    Completed(String),
    Failed { error: String, code: Option<String>, results: Option<String> },
    Interrupted(String),
}

#[derive(Serialize, Deserialize)]
pub(super) struct EndedRecord {
    end: EndRecord,
    /// JSON text.
    results: Option<String>,
    error: Option<String>,
    code: Option<String>,
    errors: BTreeMap<PropletId, Option<String>>,
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

impl PhaseRecord {
    pub(super) fn of(phase: &Phase) -> Self {
        match phase {
            Phase::Pending => Self::Pending,
            Phase::Active(active) => {
                let runs = active.runs.iter();
                Self::Active(runs.map(|(id, run)| (id.clone(), RunRecord::of(run))).collect())
            }
            Phase::Waiting(waiting) => Self::Waiting {
                last: waiting.last.clone(),
                since: waiting.since,
                why: waiting.why.clone(),
                resume_at: waiting.resume_at,
            },
            Phase::Ended(ended) => Self::Ended(EndedRecord {
                end: match ended.end {
                    End::Completed => EndRecord::Completed,
                    End::Failed => EndRecord::Failed,
                    End::Interrupted => EndRecord::Interrupted,
                },
                results: ended.results.as_ref().map(text),
                error: ended.error.clone(),
                code: ended.code.clone(),
                errors: ended.errors.clone(),
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
                Phase::Active(Active { runs })
            }
            Self::Waiting { last, since, why, resume_at } => {
                Phase::Waiting(Waiting { last, since, why, resume_at })
            }
            Self::Ended(ended) => Phase::Ended(Ended {
                end: match ended.end {
                    EndRecord::Completed => End::Completed,
                    EndRecord::Failed => End::Failed,
                    EndRecord::Interrupted => End::Interrupted,
                },
                results: ended.results.map(JsonText::revive),
                error: ended.error,
                code: ended.code,
                errors: ended.errors,
                started_at: ended.started_at,
                finished_at: ended.finished_at,
            }),
        }
    }
}

impl RunRecord {
    fn of(run: &Run) -> Self {
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
            (Some(since), Some(outcome)) => Stage::Reported { since, outcome: outcome.revive() },
        };
        Run::revive(stage, self.sent_at)
    }
}

impl OutcomeRecord {
    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Completed(results) => Self::Completed(text(results)),
            Outcome::Failed { error, code, results } => Self::Failed {
                error: error.clone(),
                code: code.clone(),
                results: results.as_ref().map(text),
            },
            Outcome::Interrupted(why) => Self::Interrupted(why.clone()),
        }
    }

    fn revive(self) -> Outcome {
        match self {
            Self::Completed(results) => Outcome::Completed(JsonText::revive(results)),
            Self::Failed { error, code, results } => {
                Outcome::Failed { error, code, results: results.map(JsonText::revive) }
            }
            Self::Interrupted(why) => Outcome::Interrupted(why),
        }
    }
}

fn text(json: &JsonText) -> String {
    json.as_str().to_owned()
}
