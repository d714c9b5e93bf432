//! What is on disk: the durable forms of tasks, proplets and rounds, and the way back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::{
    AbsentReason, Digest, Entry, EntryError, PropletId, RoundId, TaskId, Timestamp,
    message::RoundAbsent,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

mod phase;

use crate::{
    proplet::Proplet,
    rounds::Started,
    spec::{FileRef, Placed, Spec},
    state::State,
    task::{Phase, Task},
};
use phase::PhaseRecord;

pub(crate) const PROPLETS: &str = "proplets";
pub(crate) const TASKS: &str = "tasks";
pub(crate) const FILES: &str = "files";
pub(crate) const ROUNDS: &str = "rounds";
pub(crate) const ABSENT: &str = "absent";

/// Every table that the manager keeps.
pub const TABLES: &[&str] = &[PROPLETS, TASKS, FILES, ROUNDS, ABSENT];

#[derive(Serialize, Deserialize)]
struct PropletRecord {
    id: PropletId,
    namespace: String,
    metadata: BTreeMap<String, Value>,
    alive: bool,
    last_alive_at: Option<Timestamp>,
    lists_tasks: bool,
}

#[derive(Serialize, Deserialize)]
struct TaskRecord {
    id: TaskId,
    seq: u64,
    name: String,
    image_url: Option<String>,
    file: Option<FileRecord>,
    cli_args: Vec<String>,
    inputs: Vec<Value>,
    env: BTreeMap<String, String>,
    daemon: bool,
    placed: PlacedRecord,
    retries: u32,
    created_at: Timestamp,
    updated_at: Timestamp,
    attempt: u32,
    retried: u32,
    phase: PhaseRecord,
}

#[derive(Serialize, Deserialize)]
struct FileRecord {
    digest: Digest,
    len: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PlacedRecord {
    Anywhere,
    Pinned(PropletId),
    Everywhere,
}

#[derive(Serialize, Deserialize)]
struct RoundRecord {
    id: RoundId,
    fingerprint: Digest,
    at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct AbsentRecord {
    round: RoundId,
    proplet: PropletId,
    reason: AbsentReason,
    error: Option<String>,
}

pub(crate) fn proplet(proplet: &Proplet) -> Entry {
    let record = PropletRecord {
        id: proplet.id.clone(),
        namespace: proplet.namespace.clone(),
        metadata: proplet.metadata.clone(),
        alive: proplet.is_alive(),
        last_alive_at: proplet.last_alive_at,
        lists_tasks: proplet.lists_tasks,
    };
    Entry::put(PROPLETS, &proplet.id, &record)
}

pub(crate) fn task(task: &Task) -> Entry {
    let spec = &task.spec;
    let record = TaskRecord {
        id: task.id.clone(),
        seq: task.seq,
        name: spec.name.clone(),
        image_url: spec.image_url.clone(),
        file: spec.file.map(|file| FileRecord { digest: file.digest, len: file.len }),
        cli_args: spec.cli_args.clone(),
        inputs: spec.inputs.clone(),
        env: spec.env.iter().map(|(name, value)| (name.clone(), value.to_string())).collect(),
        daemon: spec.daemon,
        placed: match &spec.placed {
            Placed::Anywhere => PlacedRecord::Anywhere,
            Placed::Pinned(proplet) => PlacedRecord::Pinned(proplet.clone()),
            Placed::Everywhere => PlacedRecord::Everywhere,
        },
        retries: spec.retries,
        created_at: task.created_at,
        updated_at: task.updated_at,
        attempt: task.attempt(),
        retried: task.retried(),
        phase: PhaseRecord::of(task.phase()),
    };
    Entry::put(TASKS, &task.id, &record)
}

pub(crate) fn round(id: &RoundId, started: &Started) -> Entry {
    let record = RoundRecord { id: id.clone(), fingerprint: started.fingerprint, at: started.at };
    Entry::put(ROUNDS, id, &record)
}

pub(crate) fn absence(letter: &RoundAbsent) -> Entry {
    let (round, proplet) = (letter.round_id.clone(), letter.proplet_id.clone());
    let key = absent_key(&round, &proplet);
    let (reason, error) = (letter.reason, letter.error.clone());
    Entry::put(ABSENT, key, &AbsentRecord { round, proplet, reason, error })
}

/// Ids have no slashes, so no two pairs share a key.
pub(crate) fn absent_key(round: &RoundId, proplet: &PropletId) -> String {
    format!("{round}/{proplet}")
}

/// Fills an empty state with what was kept, in whatever order it comes.
pub(crate) fn restore(state: &mut State, entries: Vec<Entry>) -> Result<(), EntryError> {
    let mut tasks = vec![];
    let mut absences = vec![];
    for entry in entries {
        match entry.table {
            FILES => restore_file(state, entry),
            PROPLETS => restore_proplet(state, entry.read()?),
            TASKS => tasks.extend(entry.read::<TaskRecord>()?),
            ROUNDS => restore_round(state, entry.read()?),
            ABSENT => absences.extend(entry.read::<AbsentRecord>()?),
            other => unreachable!("the store hands out only known tables, not {other}"),
        }
    }
    for record in tasks {
        let task = record.revive();
        if let Some(file) = task.spec.file {
            state.files.share(file);
        }
        state.proplets.move_task(&task.id, &BTreeSet::new(), &task.running_on());
        state.tasks.put(task);
    }
    for record in absences {
        if let Some(started) = state.rounds.get_mut(&record.round) {
            started.absent.insert(record.proplet, (record.reason, record.error));
        }
    }
    Ok(())
}

fn restore_file(state: &mut State, entry: Entry) {
    if let (Ok(digest), Some(bytes)) = (entry.key.parse(), entry.value) {
        state.files.insert(digest, bytes.into());
    }
}

fn restore_proplet(state: &mut State, record: Option<PropletRecord>) {
    let Some(record) = record else { return };
    let known = state.proplets.know(&record.id);
    known.namespace = record.namespace;
    known.metadata = record.metadata;
    known.last_alive_at = record.last_alive_at;
    known.kept_at = record.last_alive_at;
    known.lists_tasks = record.lists_tasks;
    if record.alive {
        let until = record.last_alive_at.unwrap_or_default() + state.limits.liveness;
        state.proplets.mark_alive(&record.id, until);
    }
}

fn restore_round(state: &mut State, record: Option<RoundRecord>) {
    let Some(record) = record else { return };
    let started = Started::new(record.fingerprint, record.at);
    state.rounds.insert(record.id, started);
}

impl TaskRecord {
    fn revive(self) -> Task {
        let spec = Spec {
            name: self.name,
            image_url: self.image_url,
            file: self.file.map(|file| FileRef { digest: file.digest, len: file.len }),
            cli_args: self.cli_args,
            inputs: self.inputs,
            env: self.env.into_iter().map(|(name, value)| (name, Arc::from(value))).collect(),
            daemon: self.daemon,
            placed: match self.placed {
                PlacedRecord::Anywhere => Placed::Anywhere,
                PlacedRecord::Pinned(proplet) => Placed::Pinned(proplet),
                PlacedRecord::Everywhere => Placed::Everywhere,
            },
            retries: self.retries,
        };
        let mut fresh = Task::new(self.id, self.seq, spec, self.created_at);
        fresh.updated_at = self.updated_at;
        let phase: Phase = self.phase.revive();
        Task::revive(fresh, self.attempt, self.retried, phase)
    }
}
