//! The agent: one proplet's part in the platform.

mod contributing;
mod encoded;
mod fetching;
mod tasks;
mod variates;
mod voice;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use protocol::{
    Digest, Entry, EntryError, Filter, Input, Machine, Output, PropletId, TaskId, Timestamp, Topic,
    message::{TaskStart, Update, UpdateAck, Verdict},
};

use variates::{Own, Variate};

use crate::{
    BaseModel, Config, Effect, Need, News, Note, Report, fetches::Fetches, models::Models,
    purpose::Purpose, record, record::ResultRecord, residuals::Residuals, results::Results,
    slots::Slots, turn::Turn, updates::Updates,
};

/// One proplet, without its sockets, files and programs.
///
/// Invariants: at most `concurrency` slots are taken; a task is in at most one of queue, waiting
/// and running; a result never changes; an update is said again until its verdict is heard; a blob
/// is pinned as long as a task runs on it, or an update of it waits for its verdict.
#[derive(Debug)]
pub struct Agent {
    proplet: PropletId,
    config: Arc<Config>,
    link: Link,
    next_alive: Timestamp,
    /// [`NEVER`], while there is nothing to say.
    next_metrics: Timestamp,
    queue: VecDeque<Box<TaskStart>>,
    /// In a slot, until base model and module are there.
    waiting: Slots<Waiting>,
    /// In a slot.
    running: Slots<Run>,
    /// Made when there is any.
    cut_off: Option<Box<CutOff>>,
    results: Results,
    updates: Updates,
    residuals: Residuals,
    /// What guests left for the next of their kind.
    states: Residuals,
    models: Models,
    fetches: Fetches,
}

/// Runs that did not come to their end by themselves.
#[derive(Debug, Default)]
struct CutOff {
    /// Cancelled; each still has its slot until it reports that it finished.
    ending: BTreeMap<(TaskId, u32), Kit>,
    /// What ran when the last process died, until that could be said.
    interrupted: BTreeMap<TaskId, u32>,
}

/// The connection to the broker.
#[derive(Debug)]
struct Link {
    up: bool,
    /// How many connections there have been.
    count: u64,
    /// Whether the introduction was said again on this one.
    repeated: bool,
    /// The process is to end: nothing is taken and nothing is said any more.
    closing: bool,
}

/// The end of time.
const NEVER: Timestamp = Timestamp::from_micros(u64::MAX);

#[derive(Debug)]
struct Waiting {
    start: Box<TaskStart>,
    purpose: Purpose,
    /// What has not come yet; never empty.
    lacks: Vec<Need>,
    /// What has.
    kit: Kit,
    until: Timestamp,
}

/// What a task runs on; a blob of it is pinned for this task.
#[derive(Debug, Default)]
struct Kit {
    model: Option<BaseModel>,
    module: Option<Box<Digest>>,
    variate: Option<Box<Variate>>,
}

#[derive(Debug)]
struct Run {
    attempt: u32,
    purpose: Purpose,
    kit: Kit,
    /// What it has made, while that becomes a blob.
    packing: Option<Box<Update>>,
    /// Its state, in a round with control variates.
    own: Option<Box<Own>>,
}

impl Agent {
    /// An agent without a memory.
    pub fn new(config: Config) -> Self {
        Self::alike(config.proplet.clone(), config.seed, Arc::new(config))
    }

    /// One of many with the same settings; `proplet` and `seed` stand in for those in `config`.
    pub fn alike(proplet: PropletId, seed: u64, config: Arc<Config>) -> Self {
        let updates = Updates::new(&proplet, seed);
        Self {
            proplet,
            config,
            link: Link { up: false, count: 0, repeated: false, closing: false },
            next_alive: Timestamp::ZERO,
            next_metrics: NEVER,
            queue: VecDeque::new(),
            waiting: Slots::new(),
            running: Slots::new(),
            cut_off: None,
            results: Results::default(),
            updates,
            residuals: Residuals::of_encodings(),
            states: Residuals::of_guests(),
            models: Models::default(),
            fetches: Fetches::default(),
        }
    }

    /// How many tasks take a slot.
    pub fn slots_taken(&self) -> usize {
        self.waiting.len() + self.running.len() + self.ending_len()
    }

    /// How many connections to the broker there have been.
    pub const fn connections(&self) -> u64 {
        self.link.count
    }

    fn ending_len(&self) -> usize {
        self.cut_off.as_ref().map_or(0, |cut_off| cut_off.ending.len())
    }

    fn hear(&mut self, news: News, turn: &mut Turn) {
        match news {
            News::Start(start) => self.take(start, turn),
            News::Stop(stop) => self.stop(&stop, turn),
            News::Ack(ack) => self.judged(&ack, turn),
            News::Model { uri, payload } => self.model_heard(uri, &payload, turn),
            News::ModelBlob { uri, blob } => self.blob_heard(uri, blob, turn),
            News::ModelChunk { uri, index, payload } => {
                self.chunk_heard(&Need::Model(uri), index, payload, turn);
            }
            News::Variate { round, series, payload } => {
                self.variate_heard(round, series, payload, turn);
            }
            News::ModuleChunk { sha256, index, payload } => {
                self.chunk_heard(&Need::Module(sha256), index, payload, turn);
            }
            News::Wants(wanted) => self.wanted(&wanted, turn),
        }
    }

    fn note_report(&mut self, report: Report, turn: &mut Turn) {
        match report {
            Report::Finished(finished) => self.finished(*finished, turn),
            Report::Measured(measurement) => self.measured(measurement, turn),
            Report::Packed { task, attempt, result } => self.packed(&task, attempt, result, turn),
            Report::Encoded { task, attempt, result } => {
                self.encoded(&task, attempt, result, turn);
            }
            Report::Begun { sha256, have } => self.begun(sha256, have, turn),
            Report::Stored { sha256, index, result } => self.stored(sha256, index, result, turn),
            Report::Fetched { sha256, result } => self.fetched(sha256, result, turn),
            Report::ChunkRead { round, sha256, index, result } => {
                self.chunk_read((round, sha256), index, result, turn);
            }
            Report::Lost { connection } => {
                if connection == self.link.count {
                    self.disconnected();
                }
            }
            Report::Shutdown => self.shut_down(turn),
        }
    }

    fn judged(&mut self, ack: &UpdateAck, turn: &mut Turn) {
        if ack.proplet_id != self.proplet {
            return;
        }
        let Some(forgotten) = self.updates.forget(&ack.round_id) else { return };
        turn.keep(|| Entry::forget(record::UPDATES, &ack.round_id));
        if let Some(blob) = forgotten {
            turn.effect(Effect::Drop(blob));
        }
        let (entries, blobs) = self.residuals.judged(&ack.round_id, ack.verdict);
        entries.into_iter().for_each(|entry| turn.keep(|| entry));
        blobs.into_iter().for_each(|blob| turn.effect(Effect::Drop(blob)));
        // The states of guests are in no blobs.
        let (entries, _) = self.states.judged(&ack.round_id, ack.verdict);
        entries.into_iter().for_each(|entry| turn.keep(|| entry));
        let round = ack.round_id.clone();
        turn.note(match ack.verdict {
            Verdict::Accepted => Note::Accepted { round },
            Verdict::Rejected(reason) => Note::Rejected { round, reason },
        });
    }
}

impl Machine for Agent {
    type News = News;
    type Effect = Effect;
    type Report = Report;

    fn filters(&self) -> Vec<Filter> {
        let proplet = &self.proplet;
        vec![
            Filter::Exactly(Topic::TaskStart),
            Filter::Exactly(Topic::TaskStop),
            Filter::Exactly(Topic::DirectStart { proplet: proplet.clone() }),
            Filter::Exactly(Topic::DirectStop { proplet: proplet.clone() }),
            Filter::AcksOf(proplet.clone()),
            Filter::UpdateWantsOf(proplet.clone()),
        ]
    }

    fn restore(&mut self, entries: Vec<Entry>) -> Result<(), EntryError> {
        let (mut residuals, mut states) = (vec![], vec![]);
        for entry in entries {
            if self.residuals.holds(&entry) {
                residuals.push(entry);
            } else if self.states.holds(&entry) {
                states.push(entry);
            } else if entry.table == record::RESULTS {
                if let Some(kept) = entry.read::<ResultRecord>()? {
                    self.results.restore(kept);
                }
            } else if entry.table == record::RUNNING {
                let running = record::read_running(&entry)?;
                self.cut_off.get_or_insert_default().interrupted.extend(running);
            } else if let Some(round) = record::read_update_round(&entry)? {
                let payload = entry.value.map(Bytes::from).unwrap_or_default();
                self.updates.put(round, payload);
            }
        }
        self.residuals.restore(residuals)?;
        self.states.restore(states)
    }

    fn step(&mut self, input: Input<News, Report>, now: Timestamp) -> Vec<Output<Effect>> {
        let mut turn = Turn::new(now, self.config.records);
        match input {
            Input::News(news) => self.hear(news, &mut turn),
            Input::Report(report) => self.note_report(report, &mut turn),
            Input::Connected { .. } => self.connected(&mut turn),
            Input::Tick => {}
        }
        if !self.link.closing {
            self.attend_fetches(&mut turn);
            self.give_up_waiting(&mut turn);
            self.fill_slots(&mut turn);
            self.speak(&mut turn);
        }
        turn.end()
    }

    fn disconnected(&mut self) {
        self.link.up = false;
        self.fetches.disconnected();
    }

    fn deadline(&self) -> Option<Timestamp> {
        if self.link.closing || !self.link.up {
            return None;
        }
        let waits = self.waiting.values().filter(|waiting| self.depends(waiting).is_some());
        let waits = waits.map(|waiting| waiting.until).chain(self.fetches.deadline());
        waits.chain([self.next_alive, self.next_metrics]).chain(self.updates.deadline()).min()
    }
}
