//! All tasks, and the indexes that keep every message's work small.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{PropletId, TaskId, Timestamp};

use crate::task::{Phase, Task};

#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    by_id: BTreeMap<TaskId, Task>,
    /// In the order of creation.
    by_seq: BTreeMap<u64, TaskId>,
    seq_next: u64,
    /// Waiting tasks, by when they may run again.
    by_resume: BTreeSet<(Timestamp, TaskId)>,
    /// Waiting tasks, by the proplet that they wait for; `None` is any.
    parked: BTreeMap<Option<PropletId>, BTreeSet<TaskId>>,
    /// Finished federated tasks, oldest first.
    spent: BTreeSet<u64>,
}

impl Tasks {
    pub(crate) fn get(&self, id: &TaskId) -> Option<&Task> {
        self.by_id.get(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) const fn seq_next(&self) -> u64 {
        self.seq_next
    }

    /// In the order of creation.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Task> {
        self.by_seq.values().filter_map(|id| self.by_id.get(id))
    }

    /// Takes a task out, to put it back changed.
    pub(crate) fn take(&mut self, id: &TaskId) -> Option<Task> {
        let task = self.by_id.remove(id)?;
        self.by_seq.remove(&task.seq);
        self.spent.remove(&task.seq);
        if let Phase::Waiting(waiting) = task.phase() {
            self.by_resume.remove(&(waiting.resume_at, task.id.clone()));
            let pinned = task.spec.pinned().cloned();
            if let Some(parked) = self.parked.get_mut(&pinned) {
                parked.remove(id);
                if parked.is_empty() {
                    self.parked.remove(&pinned);
                }
            }
        }
        Some(task)
    }

    /// A start was sent again: nothing that has to be kept. Returns the attempt.
    pub(crate) fn note_resend(&mut self, id: &TaskId, on: &PropletId, now: Timestamp) -> u32 {
        let Some(task) = self.by_id.get_mut(id) else { return 0 };
        let resent = task.resent(on, now);
        assert!(resent.is_ok(), "a start is sent again only to a proplet that has not reported");
        task.attempt()
    }

    pub(crate) fn put(&mut self, task: Task) {
        self.seq_next = self.seq_next.max(task.seq + 1);
        self.by_seq.insert(task.seq, task.id.clone());
        match task.phase() {
            Phase::Waiting(waiting) => {
                self.by_resume.insert((waiting.resume_at, task.id.clone()));
                let pinned = task.spec.pinned().cloned();
                self.parked.entry(pinned).or_default().insert(task.id.clone());
            }
            Phase::Ended(_) if task.spec.round().is_some() => {
                self.spent.insert(task.seq);
            }
            Phase::Pending | Phase::Active(_) | Phase::Ended(_) => {}
        }
        self.by_id.insert(task.id.clone(), task);
    }

    /// The next waiting task that may run again at `now`; it is not named twice.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<TaskId> {
        let (at, _) = self.by_resume.first()?;
        if *at > now {
            return None;
        }
        self.by_resume.pop_first().map(|(_, id)| id)
    }

    /// When the next waiting task may run again.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.by_resume.first().map(|(at, _)| *at)
    }

    /// Tasks that wait for this proplet, or for any.
    pub(crate) fn waiting_for(&self, proplet: &PropletId) -> Vec<TaskId> {
        let own = self.parked.get(&Some(proplet.clone())).into_iter().flatten();
        own.chain(self.parked.get(&None).into_iter().flatten()).cloned().collect()
    }

    /// The oldest finished federated task, if there are more than `kept_max`.
    pub(crate) fn surplus(&self, kept_max: usize) -> Option<TaskId> {
        let oldest = self.spent.first().filter(|_| self.spent.len() > kept_max)?;
        self.by_seq.get(oldest).cloned()
    }
}
