//! What proplets measured: the last of each proplet, the last hundred of each task. Not kept
//! across a restart.

use std::collections::{BTreeMap, VecDeque};

use protocol::{
    TaskId, Timestamp,
    message::{PropletMetrics, TaskMetrics},
};

use crate::{
    act::Acts,
    limits::{METRICS_MAX, METRICS_PER_TASK_MAX},
    state::State,
    task::Stage,
};

/// Longest word on where a module came from.
const MODULE_LEN_MAX: usize = 64;

/// What tasks took, by task, the oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    by_task: BTreeMap<TaskId, VecDeque<TaskMetrics>>,
    /// Whose report came when; at least as long as there are reports.
    order: VecDeque<TaskId>,
    /// How many of these were forgotten meanwhile, about.
    stale: usize,
}

/// So many forgotten reports are not worth a look.
const STALE_MIN: usize = 1000;

impl Metrics {
    fn add(&mut self, metrics: TaskMetrics) {
        if self.order.len() >= METRICS_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Some(list) = self.by_task.get_mut(&oldest)
        {
            list.pop_front();
            if list.is_empty() {
                self.by_task.remove(&oldest);
            }
        }
        self.order.push_back(metrics.task_id.clone());
        let list = self.by_task.entry(metrics.task_id.clone()).or_default();
        if list.is_empty() {
            // Mostly it stays the only one.
            list.reserve_exact(1);
        }
        list.push_back(metrics);
        if list.len() > METRICS_PER_TASK_MAX {
            list.pop_front();
        }
    }

    pub(crate) fn of(&self, task: &TaskId) -> impl ExactSizeIterator<Item = &TaskMetrics> {
        static NONE: VecDeque<TaskMetrics> = VecDeque::new();
        self.by_task.get(task).unwrap_or(&NONE).iter()
    }

    pub(crate) fn forget(&mut self, task: &TaskId) {
        let Some(list) = self.by_task.remove(task) else { return };
        self.stale += list.len();
        if self.stale > STALE_MIN.max(self.order.len() / 2) {
            self.stale = 0;
            self.order.retain(|task| self.by_task.contains_key(task));
        }
    }
}

impl State {
    pub(crate) fn hear_proplet_metrics(&mut self, metrics: PropletMetrics) {
        self.counts.proplet_metrics += 1;
        let id = metrics.proplet_id.clone();
        if self.proplets.get(&id).is_some() {
            self.proplets.know(&id).metrics = Some(Box::new(metrics));
        }
    }

    /// Also says that the task has arrived.
    pub(crate) fn hear_task_metrics(
        &mut self,
        mut metrics: TaskMetrics,
        now: Timestamp,
        out: &mut Acts,
    ) {
        self.counts.task_metrics += 1;
        let (id, on) = (metrics.task_id.clone(), metrics.proplet_id.clone());
        let known = self.tasks.get(&id).filter(|task| task.was_sent_to(&on));
        let Some(task) = known.filter(|task| metrics.attempt <= task.attempt()) else {
            self.ignore("task metrics", format!("task {id} was not sent to {on}"), out);
            return;
        };
        // The same id, held once.
        metrics.task_id = task.id.clone();
        let arrived = task.is_latest(metrics.attempt)
            && task.run(&on).is_some_and(|run| run.stage == Stage::Sent);
        if arrived {
            let confirmed = self.change(&id, now, out, |task| task.confirm(&on, now));
            assert!(confirmed.is_ok(), "a run that was sent can be confirmed");
        }
        if metrics.module.len() > MODULE_LEN_MAX {
            metrics.module = metrics.module.chars().take(MODULE_LEN_MAX / 4).collect();
        }
        self.metrics.add(metrics);
    }
}
