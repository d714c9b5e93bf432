//! How long tasks take, for Prometheus.

use std::collections::BTreeMap;

use fleet::Notice;
use protocol::{TaskId, message::TaskState};
use service::figures::{Figures, Seconds, SecondsBy, labels};
use tokio::time::Instant;

/// Tasks under way whose times are remembered; of further ones nothing is said.
const REMEMBERED_MAX: usize = 100_000;

/// Distributions of times. What began before the start of this process is not among them.
#[derive(Debug)]
pub(crate) struct Timings {
    /// From the dispatch of a task to word that it runs.
    starts: Seconds,
    /// From the dispatch of a task to its end.
    tasks: SecondsBy,
    scheduled: BTreeMap<TaskId, Instant>,
}

impl Timings {
    pub(crate) fn new(figures: &mut Figures) -> Self {
        Self {
            starts: figures.seconds(
                "aileron_task_start_seconds",
                "From the dispatch of a task to word that it runs",
            ),
            tasks: figures.seconds_by(
                "aileron_task_seconds",
                "From the dispatch of a task to its end, by the state that it ends in",
            ),
            scheduled: BTreeMap::new(),
        }
    }

    pub(crate) fn note(&mut self, notice: &Notice) {
        let Notice::Task { id, to, .. } = notice else { return };
        match to {
            TaskState::Scheduled => {
                if self.scheduled.len() < REMEMBERED_MAX {
                    self.scheduled.insert(id.clone(), Instant::now());
                }
            }
            TaskState::Running => {
                if let Some(since) = self.scheduled.get(id) {
                    self.starts.observe(since.elapsed().as_secs_f64());
                }
            }
            TaskState::Pending => drop(self.scheduled.remove(id)),
            TaskState::Completed
            | TaskState::Failed
            | TaskState::Skipped
            | TaskState::Interrupted => {
                if let Some(since) = self.scheduled.remove(id) {
                    let state = labels([("state", &to.to_string())]);
                    self.tasks.get_or_create(&state).observe(since.elapsed().as_secs_f64());
                }
            }
        }
    }
}
