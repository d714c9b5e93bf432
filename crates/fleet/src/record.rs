//! What is on disk: the durable forms of tasks, proplets and rounds, and the way back.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use protocol::{
    AbsentReason, Digest, Entry, EntryError, PropletId, RoundId, TaskId, Timestamp,
    message::{RoundAbsent, RoundStart},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

mod phase;

use crate::{
    image::Pinned,
    proplet::{Metadata, Proplet},
    rollout::Rollout,
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
/// Starts whose tasks have not all been begun, as they came.
pub(crate) const STARTS: &str = "starts";

/// Modules whose pieces stand at the broker, with how many there are.
pub(crate) const SHOWN: &str = "shown";

/// Every table that the manager keeps.
pub const TABLES: &[&str] = &[PROPLETS, TASKS, FILES, ROUNDS, ABSENT, STARTS, SHOWN];

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
struct TaskRecord<'a> {
    id: TaskId,
    seq: u64,
    name: Cow<'a, str>,
    image_url: Option<Cow<'a, str>>,
    file: Option<FileRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pinned: Option<PinnedRecord<'a>>,
    cli_args: Cow<'a, [String]>,
    inputs: Cow<'a, [Value]>,
    env: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    daemon: bool,
    placed: PlacedRecord,
    retries: u32,
    created_at: Timestamp,
    updated_at: Timestamp,
    attempt: u32,
    retried: u32,
    phase: PhaseRecord<'a>,
}

#[derive(Serialize, Deserialize)]
struct PinnedRecord<'a> {
    image: Cow<'a, str>,
    file: Option<FileRecord>,
    signature: Option<Cow<'a, str>>,
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
    #[serde(default)]
    up_to: Option<PropletId>,
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
        metadata: proplet.metadata.to_map(),
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
        name: Cow::Borrowed(&spec.name),
        image_url: spec.image_url.as_deref().map(Cow::Borrowed),
        file: spec.file().map(FileRecord::of),
        pinned: task.pinned.as_deref().map(PinnedRecord::of),
        cli_args: Cow::Borrowed(&spec.cli_args),
        inputs: Cow::Borrowed(&spec.inputs),
        env: spec.env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
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
    let Started { fingerprint, at, up_to, .. } = started;
    let record =
        RoundRecord { id: id.clone(), fingerprint: *fingerprint, at: *at, up_to: up_to.clone() };
    Entry::put(ROUNDS, id, &record)
}

pub(crate) fn absence(letter: &RoundAbsent) -> Entry {
    let (round, proplet) = (letter.round_id.clone(), letter.proplet_id.clone());
    let key = absent_key(&round, &proplet);
    let (reason, error) = (letter.reason, letter.error.clone());
    Entry::put(ABSENT, key, &AbsentRecord { round, proplet, reason, error })
}

/// Ids have no slashes, so no two pairs share a key.
pub(crate) fn shown(sha256: &Digest, count: u32) -> Entry {
    Entry::put(SHOWN, sha256, &count)
}

pub(crate) fn absent_key(round: &RoundId, proplet: &PropletId) -> String {
    format!("{round}/{proplet}")
}

/// Fills an empty state with what was kept, in whatever order it comes.
pub(crate) fn restore(state: &mut State, entries: Vec<Entry>) -> Result<(), EntryError> {
    let mut tasks = vec![];
    let mut absences = vec![];
    let mut starts: Vec<RoundStart> = vec![];
    for entry in entries {
        match entry.table {
            FILES => restore_file(state, entry),
            PROPLETS => restore_proplet(state, entry.read()?),
            TASKS => tasks.extend(entry.read::<TaskRecord<'_>>()?),
            ROUNDS => restore_round(state, entry.read()?),
            ABSENT => absences.extend(entry.read::<AbsentRecord>()?),
            STARTS => starts.extend(entry.read()?),
            SHOWN => restore_shown(state, &entry)?,
            other => unreachable!("the store hands out only known tables, not {other}"),
        }
    }
    for record in tasks {
        let task = record.revive();
        for file in task.files() {
            state.files.share(file);
        }
        state.proplets.move_task(&task.id, &[], &task.running_on());
        state.tasks.put(task);
    }
    for start in starts {
        if let Some(started) = state.rounds.get(&start.round_id) {
            let (at, up_to) = (started.at, started.up_to.clone());
            let rollout = Rollout::new(Box::new(start), at, up_to).kept();
            if state.wanted_by(&rollout).is_some() {
                state.images.wait(rollout);
            } else {
                state.rollouts.push(rollout);
            }
        }
    }
    for record in absences {
        if let Some(started) = state.rounds.get_mut(&record.round) {
            started.absent.insert(record.proplet, (record.reason, record.error));
        }
    }
    Ok(())
}

fn restore_shown(state: &mut State, entry: &Entry) -> Result<(), EntryError> {
    if let (Ok(sha256), Some(count)) = (entry.key.parse(), entry.read()?) {
        state.showing.restore(sha256, count);
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
    known.metadata = Metadata::of(record.metadata);
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
    let mut started = Started::new(record.fingerprint, record.at);
    started.up_to = record.up_to;
    state.rounds.insert(record.id, started);
}

impl FileRecord {
    fn of(file: FileRef) -> Self {
        Self { digest: file.digest, len: file.len }
    }

    fn revive(self) -> FileRef {
        FileRef { digest: self.digest, len: self.len }
    }
}

impl<'a> PinnedRecord<'a> {
    fn of(pinned: &'a Pinned) -> Self {
        Self {
            image: Cow::Borrowed(&pinned.image),
            file: pinned.file.map(FileRecord::of),
            signature: pinned.signature.as_deref().map(Cow::Borrowed),
        }
    }

    fn revive(self) -> Pinned {
        Pinned {
            image: self.image.into_owned(),
            file: self.file.map(FileRecord::revive),
            signature: self.signature.map(Cow::into_owned),
        }
    }
}

impl TaskRecord<'_> {
    fn revive(self) -> Task {
        let spec = Spec {
            name: self.name.into_owned(),
            image_url: self.image_url.map(Cow::into_owned),
            file: self.file.map(|file| Box::new(file.revive())),
            cli_args: self.cli_args.into_owned(),
            inputs: self.inputs.into_owned(),
            env: self.env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
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
        fresh.pinned = self.pinned.map(|pinned| Arc::new(pinned.revive()));
        let phase: Phase = self.phase.revive();
        Task::revive(fresh, self.attempt, self.retried, phase)
    }
}
