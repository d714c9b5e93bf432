//! Evaluations of a session's model, after every so many rounds: on the devices' own data, on a
//! held-out set that belongs to no device, or both, one after the other.
//!
//! They are rounds that make no model. What they find stands in the history row of the round that
//! made the model, and under names of their own beside its metrics; the session's goals are judged
//! after them. One that fails is noted, and is not tried again: it never ends a session.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    ModelUri, PropletId, Rejection, RoundId, Timestamp,
    message::{
        Contribution, Evaluators, PARTICIPANTS_MAX, Purpose, Quantiles, RoundComplete, RoundFailed,
        RoundStart, SessionStart,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    Note,
    candidates::Candidates,
    plan,
    session::{HistoryRow, Session},
    turn::Turn,
};

/// Most participants whose own metrics stand in the history.
const CONTRIBUTIONS_MAX: usize = 100;

/// Where a model is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leg {
    Federated,
    Central,
}

/// What one evaluation found; or why it found nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    pub leg: Leg,
    pub round_id: RoundId,
    pub participants: usize,
    pub num_updates: usize,
    pub total_samples: u64,
    pub duration_ms: u64,
    pub ended_at: Timestamp,
    /// Means, weighted by samples.
    pub metrics: BTreeMap<String, f64>,
    pub quantiles: BTreeMap<String, Quantiles>,
    /// What each participant found; left out where there are more than a hundred.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contributions: BTreeMap<PropletId, Contribution>,
    pub rejected: BTreeMap<Rejection, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Leg {
    /// What stands before the names of its metrics.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Federated => "eval",
            Self::Central => "central",
        }
    }

    /// Whether a metric of this name comes of an evaluation.
    pub(crate) fn names(metric: &str) -> bool {
        [Self::Federated, Self::Central]
            .iter()
            .any(|leg| metric.strip_prefix(leg.prefix()).is_some_and(|rest| rest.starts_with('_')))
    }

    fn round_id(self, start: &SessionStart, round: u64) -> Option<RoundId> {
        let session = &start.session_id;
        match self {
            Self::Federated => format!("{session}-e{round}"),
            Self::Central => format!("{session}-e{round}-central"),
        }
        .parse()
        .ok()
    }
}

/// What is wrong with what a start says of evaluation.
pub(crate) fn check(start: &SessionStart) -> Result<(), String> {
    let Some(spec) = &start.evaluate else { return Ok(()) };
    if let Some(central) = &spec.central
        && start.selection.participants.contains(central)
    {
        return Err(format!(
            "evaluate.central {central} is among selection.participants: it would train on what it \
             evaluates on"
        ));
    }
    match &spec.participants {
        Some(Evaluators::Count(0)) if spec.central.is_none() => {
            Err("evaluate.participants is 0, and there is no evaluate.central".to_owned())
        }
        Some(Evaluators::These(names)) if names.is_empty() || names.len() > PARTICIPANTS_MAX => {
            let count = names.len();
            Err(format!("evaluate.participants takes 1 to {PARTICIPANTS_MAX} names, not {count}"))
        }
        Some(Evaluators::Count(_) | Evaluators::These(_)) | None => Ok(()),
    }
}

/// The evaluations that follow a round.
pub(crate) fn legs(start: &SessionStart, round: u64) -> Vec<Leg> {
    let Some(spec) = start.evaluate.as_ref().filter(|spec| round.is_multiple_of(spec.every)) else {
        return vec![];
    };
    let federated = spec.participants != Some(Evaluators::Count(0));
    let federated = federated.then_some(Leg::Federated);
    federated.into_iter().chain(spec.central.is_some().then_some(Leg::Central)).collect()
}

/// The start of an evaluation of `base`, the model of `round`; or what it waits for.
pub(crate) fn start(
    session: &Session,
    leg: Leg,
    (round, base): (u64, ModelUri),
    candidates: &Candidates,
    now: Timestamp,
) -> Result<RoundStart, String> {
    let start = &session.start;
    let participants = participants(session, leg, round, candidates, now)?;
    let k = participants.len();
    let round_id = leg.round_id(start, round);
    let round_id = round_id.ok_or_else(|| "the session's id is too long".to_owned())?;
    Ok(RoundStart {
        min_updates: Some(1),
        purpose: Purpose::Evaluate,
        strategy: None,
        encoding: None,
        staleness_max: None,
        ..session.round_start(round_id, base, participants, k)
    })
}

fn participants(
    session: &Session,
    leg: Leg,
    round: u64,
    candidates: &Candidates,
    now: Timestamp,
) -> Result<BTreeSet<PropletId>, String> {
    let start = &session.start;
    let Some(spec) = &start.evaluate else { return Err("nothing is to be evaluated".to_owned()) };
    let known = (candidates, &session.standing.outstanding);
    match (leg, &spec.central, &spec.participants) {
        (Leg::Central, central, _) => Ok(central.iter().cloned().collect()),
        (Leg::Federated, _, Some(Evaluators::These(names))) => Ok(names.clone()),
        (Leg::Federated, _, Some(Evaluators::Count(count))) => {
            plan::evaluators(start, round, Some(*count), known, now)
        }
        (Leg::Federated, _, None) => plan::evaluators(start, round, None, known, now),
    }
}

impl Session {
    /// The evaluation that is under way, or the next one.
    pub(crate) fn leg(&self) -> Option<Leg> {
        self.standing.legs.first().copied()
    }

    /// Counts an evaluation that has ended, one way or the other; the row that it belongs to.
    pub(crate) fn evaluated(
        &mut self,
        end: Result<RoundComplete, &RoundFailed>,
        asked: usize,
    ) -> Option<HistoryRow> {
        let standing = &mut self.standing;
        if standing.legs.is_empty() {
            return None;
        }
        let leg = standing.legs.remove(0);
        let evaluation = match end {
            Ok(complete) => found(leg, complete, asked),
            Err(failed) => nothing(leg, failed, asked),
        };
        standing.detail = None;
        standing.updated_at = evaluation.ended_at.max(standing.updated_at);
        for (name, value) in &evaluation.metrics {
            standing.metrics.insert(format!("{}_{name}", leg.prefix()), *value);
        }
        let mut row = standing.row.take()?;
        row.evaluations.push(evaluation);
        if standing.legs.is_empty() {
            self.judge(row.round, row.model_version);
        } else {
            self.standing.row = Some(row.clone());
        }
        Some(row)
    }
}

/// Says how an evaluation went.
pub(crate) fn tell(session: &Session, row: &HistoryRow, turn: &mut Turn) {
    let Some(evaluation) = row.evaluations.last() else { return };
    let session = session.start.session_id.clone();
    match &evaluation.error {
        None => turn.note(Note::Evaluated {
            session,
            round: evaluation.round_id.clone(),
            updates: evaluation.num_updates,
        }),
        Some(what) => turn.note(Note::RoundFailed { session, what: what.clone() }),
    }
}

fn found(leg: Leg, complete: RoundComplete, participants: usize) -> Evaluation {
    let many = complete.contributions.len() > CONTRIBUTIONS_MAX;
    Evaluation {
        leg,
        round_id: complete.round_id,
        participants,
        num_updates: complete.num_updates,
        total_samples: complete.total_samples,
        duration_ms: complete.duration_ms,
        ended_at: complete.completed_at,
        metrics: complete.metrics,
        quantiles: complete.quantiles,
        contributions: if many { BTreeMap::new() } else { complete.contributions },
        rejected: complete.rejected,
        error: None,
    }
}

fn nothing(leg: Leg, failed: &RoundFailed, participants: usize) -> Evaluation {
    let error = failed.error.as_deref().map(|error| format!(": {error}"));
    let (round, reason) = (&failed.round_id, failed.reason);
    Evaluation {
        leg,
        round_id: round.clone(),
        participants,
        num_updates: failed.num_updates,
        total_samples: 0,
        duration_ms: 0,
        ended_at: failed.failed_at,
        metrics: BTreeMap::new(),
        quantiles: BTreeMap::new(),
        contributions: BTreeMap::new(),
        rejected: BTreeMap::new(),
        error: Some(format!("evaluation {round} failed: {reason}{}", error.unwrap_or_default())),
    }
}
