//! One session: where it stands, and what a round's end makes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use protocol::{
    Digest, FailReason, ModelUri, ModelVersion, PropletId, Rejection, RoundId, Timestamp,
    message::{
        Best, Better, Patience, Purpose, RoundComplete, RoundFailed, RoundStart, SessionStart,
        SessionState, SessionStatus,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    evaluating::{self, Evaluation, Leg},
    selection::Shares,
};

/// Metric that a proplet's utility is taken from.
const LOSS: &str = "loss";
/// After the first failure of a round; after each further one twice as long.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A session and everything that it has to remember.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) start: Arc<SessionStart>,
    pub(crate) fingerprint: Digest,
    pub(crate) standing: Standing,
    pub(crate) shares: Shares,
    pub(crate) unkept: Unkept,
    /// The round that is under way.
    pub(crate) current: Option<Current>,
    /// For somebody to ask, or for a model to begin from.
    pub(crate) waits: bool,
    /// Not before this is a round asked for again that has failed; not kept.
    pub(crate) paused_until: Option<Timestamp>,
    /// The first row of its history that is remembered, or the next one.
    pub(crate) first_row: u64,
}

/// What changes from round to round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// In the order in which sessions were taken.
    pub(crate) ordinal: u64,
    pub(crate) state: SessionState,
    pub(crate) started_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) rounds_done: u64,
    /// How often the present round has failed.
    pub(crate) failures: u32,
    /// How often it may.
    pub(crate) failures_max: u32,
    pub(crate) model: Option<ModelUri>,
    pub(crate) metrics: BTreeMap<String, f64>,
    pub(crate) best: Option<Best>,
    /// Rounds since the best one.
    pub(crate) stale: u64,
    pub(crate) detail: Option<String>,
    /// Evaluations that are due before the next round; the first one may be under way.
    #[serde(default)]
    pub(crate) legs: Vec<Leg>,
    /// What they are added to.
    #[serde(default)]
    pub(crate) row: Option<HistoryRow>,
    /// Who was asked in a round that has ended, and is at work for those to come.
    #[serde(default)]
    pub(crate) outstanding: BTreeSet<PropletId>,
}

/// A round that was asked for. Its start is kept, so that it is repeated to the last byte.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    pub(crate) round: RoundId,
    pub(crate) start: Bytes,
    pub(crate) asked: usize,
    /// Heard since the start of this process.
    pub(crate) opened: bool,
    pub(crate) repeat_at: Timestamp,
}

/// One proplet's part in a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Share {
    pub(crate) asked: u64,
    pub(crate) samples: Option<u64>,
    pub(crate) utility: Option<f64>,
    pub(crate) counted_in: Option<u64>,
}

/// What of the shares is not on the disk as it is here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unkept {
    pub(crate) proplets: BTreeSet<PropletId>,
    /// An earlier release kept all of them as one.
    pub(crate) as_one: bool,
}

/// What one round of a session came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// From 1.
    pub round: u64,
    pub round_id: RoundId,
    pub model_version: ModelVersion,
    pub participants: usize,
    pub num_updates: usize,
    pub total_samples: u64,
    pub duration_ms: u64,
    pub completed_at: Timestamp,
    pub metrics: BTreeMap<String, f64>,
    pub rejected: BTreeMap<Rejection, u64>,
    /// What was found of its model, where that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluations: Vec<Evaluation>,
}

impl Session {
    pub(crate) fn new(start: SessionStart, ordinal: u64, now: Timestamp) -> Self {
        let standing = Standing {
            ordinal,
            state: SessionState::Running,
            started_at: now,
            updated_at: now,
            rounds_done: 0,
            failures: 0,
            failures_max: start.retries,
            model: start.model_uri.clone(),
            metrics: BTreeMap::new(),
            best: None,
            stale: 0,
            detail: None,
            legs: vec![],
            row: None,
            outstanding: BTreeSet::new(),
        };
        let fingerprint = start.fingerprint();
        Self {
            start: Arc::new(start),
            fingerprint,
            standing,
            shares: Shares::new(),
            unkept: Unkept::default(),
            current: None,
            waits: false,
            paused_until: None,
            first_row: 1,
        }
    }

    /// Rows of its history that are remembered.
    pub(crate) fn rows(&self) -> u64 {
        (self.standing.rounds_done + 1).saturating_sub(self.first_row)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.standing.state == SessionState::Running
    }

    /// When it ends at the latest.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.start.deadline_s?;
        Some(self.standing.started_at + Duration::from_secs(seconds))
    }

    /// The id of the next round, or of the next attempt at it.
    pub(crate) fn next_round(&self) -> Option<RoundId> {
        let (session, round) = (&self.start.session_id, self.standing.rounds_done + 1);
        let id = match self.standing.failures {
            0 => format!("{session}-r{round}"),
            failures => format!("{session}-r{round}-t{failures}"),
        };
        id.parse().ok()
    }

    /// Counts a round that made a model, and says whether the session goes on.
    pub(crate) fn completed(&mut self, complete: RoundComplete, asked: usize) -> HistoryRow {
        let standing = &mut self.standing;
        standing.rounds_done += 1;
        (standing.failures, standing.failures_max) = (0, self.start.retries);
        standing.detail = None;
        standing.updated_at = complete.completed_at.max(standing.updated_at);
        standing.model = Some(complete.model_topic);
        standing.outstanding = complete.outstanding;
        standing.metrics.clone_from(&complete.metrics);
        let round = standing.rounds_done;
        for (proplet, part) in &complete.contributions {
            let share = self.shares.entry(proplet.clone()).or_default();
            share.counted_in = Some(round);
            share.samples = Some(part.num_samples);
            self.unkept.proplets.insert(proplet.clone());
            share.utility = part.metrics.get(LOSS).map(|loss| part.num_samples as f64 * loss.abs());
        }
        let row = HistoryRow {
            round,
            round_id: complete.round_id,
            model_version: complete.model_version,
            participants: asked,
            num_updates: complete.num_updates,
            total_samples: complete.total_samples,
            duration_ms: complete.duration_ms,
            completed_at: complete.completed_at,
            metrics: complete.metrics,
            rejected: complete.rejected,
            evaluations: vec![],
        };
        self.standing.legs = evaluating::legs(&self.start, round);
        if self.standing.legs.is_empty() {
            self.judge(round, row.model_version);
        } else {
            self.standing.row = Some(row.clone());
        }
        row
    }

    /// Holds what is known of a round's model against the session's goals.
    pub(crate) fn judge(&mut self, round: u64, version: ModelVersion) {
        self.rate(round, version);
        self.stop_if_done();
    }

    /// Asks for a round of training.
    pub(crate) fn round_start(
        &self,
        round_id: RoundId,
        base: ModelUri,
        participants: BTreeSet<PropletId>,
        k: usize,
    ) -> RoundStart {
        let start = &self.start;
        RoundStart {
            round_id,
            model_uri: base,
            task_wasm_image: start.task_wasm_image.clone(),
            file: start.file.clone(),
            participants,
            hyperparams: start.hyperparams.clone(),
            k_of_n: k,
            timeout_s: start.timeout_s,
            // What was accepted late has nowhere else to go.
            min_updates: start.asynchronous.map_or(start.min_updates, |_| Some(1)),
            strategy: start.strategy.clone(),
            clip: start.clip,
            share_max: start.share_max,
            env: start.env.clone(),
            session: Some(start.session_id.clone()),
            encoding: start.encoding.clone(),
            purpose: Purpose::Train,
            staleness_max: start.asynchronous.map(|spec| spec.staleness_max),
            traceparent: start.traceparent.clone(),
        }
    }

    /// How long after its latest failure a round is asked for again: what it failed of may pass.
    pub(crate) fn pause(&self) -> Duration {
        let standing = &self.standing;
        let before = standing.failures_max.saturating_sub(self.start.retries);
        let doublings = standing.failures.saturating_sub(before).saturating_sub(1);
        2_u32.checked_pow(doublings).map_or(PAUSE_MAX, |times| (PAUSE * times).min(PAUSE_MAX))
    }

    /// Counts a round that made none, of which so many were asked.
    pub(crate) fn failed(&mut self, failed: &RoundFailed, asked: usize) {
        let standing = &mut self.standing;
        standing.failures = standing.failures.saturating_add(1);
        if asked == 0 && failed.reason == FailReason::AllAbsent {
            // Nobody was asked since all were taken to be at work, and none of them is: it was no
            // attempt. Its id is used up all the same.
            standing.failures_max = standing.failures_max.saturating_add(1);
        }
        standing.outstanding.clone_from(&failed.outstanding);
        standing.updated_at = failed.failed_at.max(standing.updated_at);
        let error = failed.error.as_deref().map(|error| format!(": {error}"));
        let round = &failed.round_id;
        standing.detail =
            Some(format!("round {round} failed: {}{}", failed.reason, error.unwrap_or_default()));
        // What the coordinator does not take, it will not take the next time either.
        let hopeless = failed.reason == FailReason::BadStart;
        let is_over = hopeless || standing.failures > standing.failures_max;
        if is_over && standing.state == SessionState::Running {
            standing.state = SessionState::Failed;
        }
    }

    /// The best model so far, by the metric that the session goes by.
    fn rate(&mut self, round: u64, version: ModelVersion) {
        let Some((metric, better, delta)) = self.goal() else { return };
        // Rounds without an evaluation say nothing of what it would have found.
        let (span, unknown) = match &self.start.evaluate {
            Some(spec) if Leg::names(&metric) => (spec.every, 0),
            Some(_) | None => (1, 1),
        };
        let standing = &mut self.standing;
        let Some(value) = standing.metrics.get(&metric).copied() else {
            standing.stale += unknown;
            return;
        };
        let improved = |best: &Best| better.improves(value, best.value, delta);
        if standing.best.as_ref().is_none_or(improved) {
            standing.best = Some(Best { metric, value, model_version: version, round });
            standing.stale = 0;
        } else {
            standing.stale += span;
        }
    }

    fn goal(&self) -> Option<(String, Better, f64)> {
        let patience = self.start.patience.as_ref();
        let patience = patience.map(|it| (it.metric.clone(), it.op, it.min_delta));
        patience.or_else(|| self.start.target.as_ref().map(|it| (it.metric.clone(), it.op, 0.0)))
    }

    fn stop_if_done(&mut self) {
        let standing = &mut self.standing;
        let target = self.start.target.as_ref().filter(|target| {
            let value = standing.metrics.get(&target.metric);
            value.is_some_and(|value| target.op.reaches(*value, target.value))
        });
        let patience = self.start.patience.as_ref().filter(|it| standing.stale >= it.rounds);
        let detail = match (target, patience) {
            (Some(target), _) => {
                let value = standing.metrics.get(&target.metric).copied().unwrap_or(f64::NAN);
                Some(format!("target reached: {} = {value}", target.metric))
            }
            (None, Some(patience)) => {
                let Patience { metric, rounds, .. } = patience;
                Some(format!("{metric} has not become better for {rounds} rounds"))
            }
            (None, None) if standing.rounds_done >= self.start.rounds => {
                Some(format!("all {} rounds are done", self.start.rounds))
            }
            (None, None) => None,
        };
        if detail.is_some() {
            standing.state = SessionState::Complete;
            standing.detail = detail;
        }
    }

    /// Remembers that these were asked.
    pub(crate) fn ask(&mut self, participants: &[PropletId]) {
        for proplet in participants {
            self.shares.entry(proplet.clone()).or_default().asked += 1;
            self.unkept.proplets.insert(proplet.clone());
        }
    }

    pub(crate) fn status(&self) -> SessionStatus {
        let standing = self.standing.clone();
        SessionStatus {
            session_id: self.start.session_id.clone(),
            state: standing.state,
            rounds_done: standing.rounds_done,
            rounds: self.start.rounds,
            model_uri: standing.model.clone(),
            metrics: standing.metrics,
            best: standing.best,
            started_at: standing.started_at,
            updated_at: standing.updated_at,
            detail: standing.detail,
            refused: None,
        }
    }
}
