//! Spans of participants' tasks, from their dispatch to their end. Which trace they belong to, the
//! core has told the proplet already.

use std::collections::BTreeMap;

use fleet::{Notice, TracedTask};
use protocol::{SpanId, TaskId, message::TaskState};
use service::{Begun, Traces};

/// Tasks under way whose spans are remembered; of further ones nothing is said.
const REMEMBERED_MAX: usize = 100_000;
/// A task has one span; of one that is started again after its end, the first is kept.
const FIRST_ATTEMPT: u32 = 1;

/// The tasks that are traced.
#[derive(Debug, Default)]
pub(crate) struct TaskTraces {
    traces: Traces,
    begun: BTreeMap<TaskId, Begun>,
}

impl TaskTraces {
    pub(crate) fn new(traces: Traces) -> Self {
        Self { traces, begun: BTreeMap::new() }
    }

    pub(crate) fn note(&mut self, notice: &Notice) {
        let Notice::Task { id, to, attempt, why, traced: Some(traced), .. } = notice else {
            return;
        };
        match to {
            TaskState::Scheduled => {
                let is_new = *attempt == FIRST_ATTEMPT && !self.begun.contains_key(id);
                if is_new && self.traces.is_on() && self.begun.len() < REMEMBERED_MAX {
                    self.begun.insert(id.clone(), self.begin(id, traced));
                }
            }
            TaskState::Pending | TaskState::Running => {}
            TaskState::Completed
            | TaskState::Failed
            | TaskState::Skipped
            | TaskState::Interrupted => {
                let Some(begun) = self.begun.remove(id) else { return };
                let begun = begun
                    .with("aileron.task.state", to.as_str())
                    .with("aileron.task.attempts", u64::from(*attempt));
                begun.end((*to != TaskState::Completed).then(|| why.clone()));
            }
        }
    }

    /// Its parent is the coordinator's span of the round.
    fn begin(&self, id: &TaskId, traced: &TracedTask) -> Begun {
        let TracedTask { round, proplet, span } = traced;
        self.traces
            .begin("task", *span, Some(SpanId::of_round(round)))
            .with("aileron.round.id", round.to_string())
            .with("aileron.proplet.id", proplet.to_string())
            .with("aileron.task.id", id.to_string())
    }
}
