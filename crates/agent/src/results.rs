//! How the last tasks ended, kept so that a repeated start is answered, not run.

use bytes::Bytes;
use protocol::{Entry, Envelope, Letter as _, RoundId, TaskId, Topic, message::TaskResults};

use crate::{
    Config,
    record::{RESULTS, ResultRecord},
    turn::Turn,
};

/// The kept results, within a number and a number of bytes.
#[derive(Debug, Default)]
pub(crate) struct Results {
    bytes: usize,
    next: u64,
    /// The oldest first. There are few, and they are asked for by name seldom.
    kept: Vec<Kept>,
}

/// One kept result.
#[derive(Debug)]
pub(crate) struct Kept {
    task: TaskId,
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
    pub(crate) fn get(&self, task: &TaskId) -> Option<&Kept> {
        self.kept.iter().find(|kept| kept.task == *task)
    }

    /// Keeps a result, with its payload as it travels; what it pushes out is forgotten.
    pub(crate) fn keep(
        &mut self,
        (results, payload): (TaskResults, Bytes),
        round: Option<RoundId>,
        config: &Config,
        turn: &mut Turn,
    ) {
        let record = ResultRecord { sequence: self.next, round, results };
        turn.keep(|| Entry::put(RESULTS, &record.results.task_id, &record));
        self.remove(&record.results.task_id);
        let len = payload.len();
        while !self.kept.is_empty()
            && (self.kept.len() >= config.results_kept_max.max(1)
                || self.bytes.saturating_add(len) > config.results_bytes_max)
        {
            let oldest = self.kept.remove(0);
            turn.keep(|| Entry::forget(RESULTS, &oldest.task));
            self.bytes -= oldest.payload.len();
        }
        self.insert(record, payload);
    }

    /// Takes back what was kept before a restart.
    pub(crate) fn restore(&mut self, record: ResultRecord) {
        let payload = record.results.seal().payload;
        self.insert(record, payload);
    }

    fn insert(&mut self, record: ResultRecord, payload: Bytes) {
        let ResultRecord { sequence, round, results } = record;
        let TaskResults { task_id: task, attempt, .. } = results;
        self.remove(&task);
        self.next = self.next.max(sequence + 1);
        self.bytes += payload.len();
        let attempt = attempt.unwrap_or_default();
        let place = self.kept.partition_point(|kept| kept.sequence < sequence);
        if self.kept.is_empty() {
            self.kept.reserve_exact(1);
        }
        self.kept.insert(place, Kept { task, attempt, round, sequence, payload });
    }

    fn remove(&mut self, task: &TaskId) {
        let Some(place) = self.kept.iter().position(|kept| kept.task == *task) else { return };
        self.bytes -= self.kept.remove(place).payload.len();
    }
}
