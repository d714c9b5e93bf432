//! How the last tasks ended, kept so that a repeated start is answered, not run.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::{Entry, Envelope, Letter as _, RoundId, TaskId, Topic, message::TaskResults};

use crate::record::{RESULTS, ResultRecord};

/// The kept results, within a number and a number of bytes.
#[derive(Debug)]
pub(crate) struct Results {
    kept_max: usize,
    bytes_max: usize,
    bytes: usize,
    next: u64,
    by_task: BTreeMap<TaskId, Kept>,
    by_age: BTreeMap<u64, TaskId>,
}

/// One kept result.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) attempt: u32,
    pub(crate) round: Option<RoundId>,
    sequence: u64,
    payload: Bytes,
}

impl Kept {
    /// The result as it travels.
    pub(crate) fn envelope(&self) -> Envelope {
        Envelope { topic: Topic::TaskResults, payload: self.payload.clone() }
    }
}

impl Results {
    pub(crate) const fn new(kept_max: usize, bytes_max: usize) -> Self {
        Self {
            kept_max,
            bytes_max,
            bytes: 0,
            next: 0,
            by_task: BTreeMap::new(),
            by_age: BTreeMap::new(),
        }
    }

    pub(crate) fn get(&self, task: &TaskId) -> Option<&Kept> {
        self.by_task.get(task)
    }

    /// Keeps a result; what it pushes out is forgotten. Returns what has to be written, and the
    /// result as it travels.
    pub(crate) fn keep(
        &mut self,
        results: TaskResults,
        round: Option<RoundId>,
    ) -> (Vec<Entry>, Envelope) {
        let envelope = results.seal();
        let record = ResultRecord { sequence: self.next, round, results };
        let mut entries = vec![Entry::put(RESULTS, &record.results.task_id, &record)];
        self.insert(record, envelope.payload.clone());
        while self.by_age.len() > self.kept_max.max(1)
            || (self.bytes > self.bytes_max && self.by_age.len() > 1)
        {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            entries.push(Entry::forget(RESULTS, &oldest));
            self.remove(&oldest);
        }
        (entries, envelope)
    }

    /// Takes back what was kept before a restart.
    pub(crate) fn restore(&mut self, record: ResultRecord) {
        let payload = record.results.seal().payload;
        self.insert(record, payload);
    }

    fn insert(&mut self, record: ResultRecord, payload: Bytes) {
        let ResultRecord { sequence, round, results } = record;
        let TaskResults { task_id, attempt, .. } = results;
        self.remove(&task_id);
        self.next = self.next.max(sequence + 1);
        self.bytes += payload.len();
        self.by_age.insert(sequence, task_id.clone());
        let attempt = attempt.unwrap_or_default();
        self.by_task.insert(task_id, Kept { attempt, round, sequence, payload });
    }

    fn remove(&mut self, task: &TaskId) {
        if let Some(old) = self.by_task.remove(task) {
            self.by_age.remove(&old.sequence);
            self.bytes -= old.payload.len();
        }
    }
}
