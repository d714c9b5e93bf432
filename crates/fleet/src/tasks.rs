//! All tasks, and the indexes that keep every message's work small.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{PropletId, TaskId, Timestamp};

use crate::task::{Phase, Task};

#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    by_id: BTreeMap<TaskId, Box<Task>>,
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

/// Where the indexes have a task, beside its place in the order of creation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Plain,
    /// Until then, for this proplet or any.
    Waiting(Timestamp, Option<PropletId>),
    Spent,
}

impl Standing {
    fn of(task: &Task) -> Self {
        match task.phase() {
            Phase::Waiting(waiting) => {
                Self::Waiting(waiting.resume_at, task.spec.pinned().cloned())
            }
            Phase::Ended(_) if task.spec.is_federated() => Self::Spent,
            Phase::Pending | Phase::Active(_) | Phase::Ended(_) => Self::Plain,
        }
    }
}

impl Tasks {
    pub(crate) fn get(&self, id: &TaskId) -> Option<&Task> {
        self.by_id.get(id).map(|task| &**task)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) const fn seq_next(&self) -> u64 {
        self.seq_next
    }

    /// In the order of creation.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Task> {
        self.by_seq.values().filter_map(|id| self.get(id))
    }

    /// Changes a task where it stands.
    pub(crate) fn change<T>(
        &mut self,
        id: &TaskId,
        change: impl FnOnce(&mut Task) -> T,
    ) -> Option<T> {
        let task = self.by_id.get_mut(id)?;
        let before = Standing::of(task);
        let done = change(task);
        let (after, seq) = (Standing::of(task), task.seq);
        if before != after {
            self.withdraw(id, seq, &before);
            self.enter(id, seq, after);
        }
        Some(done)
    }

    /// Forgets a task.
    pub(crate) fn remove(&mut self, id: &TaskId) -> Option<Task> {
        let task = self.by_id.remove(id)?;
        self.by_seq.remove(&task.seq);
        self.withdraw(id, task.seq, &Standing::of(&task));
        Some(*task)
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
        self.enter(&task.id, task.seq, Standing::of(&task));
        self.by_id.insert(task.id.clone(), Box::new(task));
    }

    fn enter(&mut self, id: &TaskId, seq: u64, standing: Standing) {
        match standing {
            Standing::Plain => {}
            Standing::Waiting(resume_at, pinned) => {
                self.by_resume.insert((resume_at, id.clone()));
                self.parked.entry(pinned).or_default().insert(id.clone());
            }
            Standing::Spent => {
                self.spent.insert(seq);
            }
        }
    }

    fn withdraw(&mut self, id: &TaskId, seq: u64, standing: &Standing) {
        match standing {
            Standing::Plain => {}
            Standing::Waiting(resume_at, pinned) => {
                self.by_resume.remove(&(*resume_at, id.clone()));
                if let Some(parked) = self.parked.get_mut(pinned) {
                    parked.remove(id);
                    if parked.is_empty() {
                        self.parked.remove(pinned);
                    }
                }
            }
            Standing::Spent => {
                self.spent.remove(&seq);
            }
        }
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
