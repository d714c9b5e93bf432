//! Tasks and proplets as callers see them.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{
    PropletId, TaskId, Timestamp,
    message::{PropletMetrics, TaskState},
};
use serde_json::Value;

use crate::{
    JsonText, Spec,
    proplet::Proplet,
    task::{Phase, Task},
};

#[derive(Clone, Debug, PartialEq)]
pub struct PropletView {
    pub id: PropletId,
    pub name: String,
    pub namespace: String,
    pub task_count: usize,
    pub alive: bool,
    pub last_alive_at: Option<Timestamp>,
    pub metadata: BTreeMap<String, Value>,
    pub metrics: Option<PropletMetrics>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TaskView {
    pub id: TaskId,
    pub spec: Arc<Spec>,
    /// The image that its latest start runs, by digest, where the wording names a tag.
    pub image: Option<String>,
    pub state: TaskState,
    /// Counts the runs; 0 before the first.
    pub attempt: u32,
    /// How often a run that is cut off would still be begun again.
    pub retries_left: u32,
    /// Cut off, and about to run again: `state` is `Interrupted`, but not for good.
    pub waits: bool,
    /// Where the latest attempt was sent.
    pub sent_to: Vec<PropletId>,
    pub results: Option<JsonText>,
    pub error: Option<String>,
    /// What kind of failure, a stable word.
    pub code: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub start_time: Option<Timestamp>,
    pub finish_time: Option<Timestamp>,
}

impl PropletView {
    pub(super) fn of(proplet: &Proplet) -> Self {
        Self {
            id: proplet.id.clone(),
            name: proplet.name().to_owned(),
            namespace: proplet.namespace.clone(),
            task_count: proplet.active().len(),
            alive: proplet.is_alive(),
            last_alive_at: proplet.last_alive_at,
            metadata: proplet.metadata.to_map(),
            metrics: proplet.metrics.as_deref().cloned(),
        }
    }
}

impl TaskView {
    pub(super) fn of(task: &Task) -> Self {
        let ended = task.ended();
        let (waits, error) = match task.phase() {
            Phase::Waiting(waiting) => (true, Some(waiting.why.clone())),
            Phase::Ended(ended) => (false, ended.error.clone()),
            Phase::Pending | Phase::Active(_) => (false, None),
        };
        Self {
            id: task.id.clone(),
            spec: Arc::clone(&task.spec),
            image: task.pinned.as_ref().map(|pinned| pinned.image.clone()),
            state: task.state(),
            attempt: task.attempt(),
            retries_left: task.spec.retries.saturating_sub(task.retried()),
            waits,
            sent_to: task.sent_to(),
            results: ended.and_then(|ended| ended.results.clone()),
            error,
            code: ended.and_then(|ended| ended.code.clone()),
            created_at: task.created_at,
            updated_at: task.updated_at,
            start_time: start_time(task),
            finish_time: ended.map(|ended| ended.finished_at),
        }
    }
}

/// When it began to run, as far as anybody has said.
fn start_time(task: &Task) -> Option<Timestamp> {
    match task.phase() {
        Phase::Pending => None,
        Phase::Active(_) if task.state() == TaskState::Scheduled => None,
        Phase::Active(active) => active.runs.values().map(crate::task::Run::since).min(),
        Phase::Waiting(waiting) => Some(waiting.since),
        Phase::Ended(ended) => Some(ended.started_at),
    }
}
