//! A session's history for other programs: what is common to all of them.

pub(crate) mod mlflow;
pub(crate) mod tensorboard;

use std::collections::BTreeMap;

use anyhow::Context as _;
use protocol::{
    SessionId, Timestamp,
    message::{SessionStart, SessionState},
};
use serde::Deserialize;

use crate::http::Api;

/// A session, as the coordinator's API tells of it.
#[derive(Debug, Deserialize)]
pub(crate) struct Session {
    pub(crate) session_id: SessionId,
    pub(crate) state: SessionState,
    pub(crate) started_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) start: SessionStart,
    #[serde(skip)]
    pub(crate) rows: Vec<Row>,
}

/// One round of it.
#[derive(Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) round: u64,
    pub(crate) model_version: u64,
    pub(crate) participants: u64,
    pub(crate) num_updates: u64,
    pub(crate) total_samples: u64,
    pub(crate) duration_ms: u64,
    pub(crate) completed_at: Timestamp,
    rejected: BTreeMap<String, u64>,
    /// Metrics, and what evaluations found.
    pub(crate) series: BTreeMap<String, f64>,
}

impl Session {
    pub(crate) fn fetch(api: &Api, id: &SessionId) -> anyhow::Result<Self> {
        // Asked before the rows: a session that has ended has all of them.
        let session = api.get(&format!("/fl/sessions/{id}"))?;
        let rows = api.all(&format!("/fl/sessions/{id}/history"), "rows")?;
        let mut session: Self =
            serde_json::from_value(session).with_context(|| format!("session {id}"))?;
        let read = |row| serde_json::from_value(row).with_context(|| format!("history of {id}"));
        session.rows = rows.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(session)
    }

    /// Rows that nothing will be added to: the last one may still be evaluated.
    pub(crate) fn settled_rows(&self) -> &[Row] {
        match self.state {
            SessionState::Complete | SessionState::Failed => &self.rows,
            SessionState::Running | SessionState::Stopped | SessionState::Refused => {
                &self.rows[..self.rows.len().saturating_sub(1)]
            }
        }
    }
}

impl Row {
    /// Every number of the round by its place: `train/loss`, `eval/accuracy_p10`, `round/...`.
    pub(crate) fn numbers(&self) -> BTreeMap<String, f64> {
        let place = |name: &str| {
            for group in ["eval", "central"] {
                if let Some(rest) = name.strip_prefix(group).and_then(|it| it.strip_prefix('_')) {
                    return format!("{group}/{rest}");
                }
            }
            format!("train/{name}")
        };
        let mut numbers: BTreeMap<String, f64> =
            self.series.iter().map(|(name, value)| (place(name), *value)).collect();
        let rejected: u64 = self.rejected.values().sum();
        for (name, count) in [
            ("round/model_version", self.model_version),
            ("round/participants", self.participants),
            ("round/num_updates", self.num_updates),
            ("round/total_samples", self.total_samples),
            ("round/duration_ms", self.duration_ms),
            ("round/rejected", rejected),
        ] {
            numbers.insert(name.to_owned(), count as f64);
        }
        numbers
    }
}
