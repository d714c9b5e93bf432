//! A device around the agent: a disk that survives crashes, and ears for what is said.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use agent::{
    Agent, BaseModel, Config, Effect, Failure, Finished, GuestOutput, Measurement, News, Outcome,
    Report, RunMetrics, TABLES, Variates,
};
use bytes::Bytes;
use protocol::{
    Digest, Entry, Envelope, Filter, Input, Letter, Machine as _, ModelUri, ModelVersion, Output,
    PropletId, Rejection, RoundId, TaskId, Timestamp, Topic,
    message::{
        FailureCode, HeldTask, PropletAlive, PropletCreate, TaskResults, TaskStart, TaskStop,
        Update, UpdateAck, Verdict,
    },
};

pub(crate) struct Device {
    pub(crate) agent: Agent,
    pub(crate) config: Config,
    pub(crate) now: Timestamp,
    disk: BTreeMap<(&'static str, String), Vec<u8>>,
    /// What was said since it was last asked for.
    pub(crate) said: Vec<Envelope>,
    /// What runs in the shell.
    pub(crate) runs: BTreeMap<(TaskId, u32), Option<BaseModel>>,
    /// What the last run was given beside the model.
    pub(crate) variates: Option<Variates>,
    pub(crate) cancelled: BTreeSet<(TaskId, u32)>,
    pub(crate) listening: BTreeSet<Filter>,
    /// What was asked of the disk and not done yet.
    pub(crate) effects: Vec<Effect>,
    pins: BTreeMap<Digest, usize>,
    pub(crate) measures: usize,
    pub(crate) stopped: bool,
}

impl Device {
    pub(crate) fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(me());
        config.metrics_every = None;
        change(&mut config);
        Self {
            agent: Agent::new(config.clone()),
            config,
            now: Timestamp::from_micros(1_768_000_000_000_000),
            disk: BTreeMap::new(),
            said: vec![],
            runs: BTreeMap::new(),
            variates: None,
            cancelled: BTreeSet::new(),
            listening: BTreeSet::new(),
            effects: vec![],
            pins: BTreeMap::new(),
            measures: 0,
            stopped: false,
        }
    }

    /// As [`Device::new`], and connected.
    pub(crate) fn connected(change: impl FnOnce(&mut Config)) -> Self {
        let mut device = Self::new(change);
        device.connect();
        device.said.clear();
        device
    }

    pub(crate) fn step(&mut self, input: Input<News, Report>) {
        for output in self.agent.step(input, self.now) {
            match output {
                Output::Keep(entry) => self.keep(entry),
                Output::Promise(envelope) | Output::Publish(envelope) => self.said.push(envelope),
                Output::Listen(filter) => {
                    // A piece that did not come is listened to again, so that it comes.
                    let again = matches!(
                        filter,
                        Filter::Exactly(Topic::ModelChunk { .. } | Topic::ModuleChunk { .. })
                    );
                    assert!(self.listening.insert(filter) || again, "listens twice");
                }
                Output::Unlisten(filter) => {
                    assert!(self.listening.remove(&filter), "was not listening to {filter:?}");
                }
                Output::Effect(effect) => self.perform(effect),
            }
        }
    }

    fn keep(&mut self, entry: Entry) {
        assert!(TABLES.contains(&entry.table), "table {} is not in the list", entry.table);
        let key = (entry.table, entry.key);
        match entry.value {
            Some(value) => self.disk.insert(key, value),
            None => self.disk.remove(&key),
        };
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Run { start, model, variates } => {
                self.variates = variates.map(|variates| *variates);
                let before = self.runs.insert((start.id.clone(), start.attempt), model);
                assert_eq!(before, None, "runs twice at once: {}", start.id);
            }
            Effect::Cancel { task, attempt } => {
                assert!(self.runs.contains_key(&(task.clone(), attempt)), "cancels what runs");
                self.cancelled.insert((task, attempt));
            }
            Effect::Hold(blobs) => blobs.into_iter().for_each(|blob| self.pin(blob)),
            Effect::Release(blob) | Effect::Drop(blob) => {
                if let Some(pins) = self.pins.get_mut(&blob) {
                    *pins = pins.checked_sub(1).expect("no more is given back than was taken");
                }
                self.effects.push(effect);
            }
            Effect::Finish(ref blob) => {
                self.pin(blob.sha256());
                self.effects.push(effect);
            }
            Effect::Pack { .. }
            | Effect::Encode(_)
            | Effect::Begin(_)
            | Effect::Store { .. }
            | Effect::Abandon(_)
            | Effect::ReadChunk { .. } => self.effects.push(effect),
            Effect::Measure => self.measures += 1,
            Effect::Stopped => self.stopped = true,
            Effect::Note(note) => assert!(!note.to_string().is_empty()),
        }
    }

    pub(crate) fn pin(&mut self, blob: Digest) {
        *self.pins.entry(blob).or_default() += 1;
    }

    pub(crate) fn pins(&self, blob: Digest) -> usize {
        self.pins.get(&blob).copied().unwrap_or_default()
    }

    pub(crate) fn connect(&mut self) {
        self.step(Input::Connected { resumed: false });
    }

    /// A message, through the codec.
    pub(crate) fn hear(&mut self, letter: &impl Letter) {
        self.hear_envelope(letter.seal());
    }

    pub(crate) fn hear_envelope(&mut self, envelope: Envelope) {
        self.step(Input::News(News::try_from(envelope).expect("readable")));
    }

    pub(crate) fn hear_model(&mut self, version: u64) {
        let topic = Topic::Model { uri: ModelUri::global(ModelVersion(version)) };
        self.hear_envelope(Envelope { topic, payload: model(version) });
    }

    pub(crate) fn verdict(&mut self, round: &str, verdict: Verdict) {
        self.hear(&UpdateAck { round_id: round_id(round), proplet_id: me(), verdict });
    }

    pub(crate) fn accept(&mut self, round: &str) {
        self.verdict(round, Verdict::Accepted);
    }

    pub(crate) fn reject(&mut self, round: &str, reason: Rejection) {
        self.verdict(round, Verdict::Rejected(reason));
    }

    pub(crate) fn finish(&mut self, task: &str, attempt: u32, outcome: Outcome) {
        let task = task_id(task);
        assert!(self.runs.remove(&(task.clone(), attempt)).is_some(), "{task} does not run");
        let metrics = RunMetrics { wall_ms: 2.5, module: "disk", ..RunMetrics::default() };
        let finished = Finished { task, attempt, outcome, metrics };
        self.step(Input::Report(Report::Finished(Box::new(finished))));
    }

    pub(crate) fn print(&mut self, task: &str, attempt: u32, stdout: &str) {
        self.finish(task, attempt, printed(stdout));
    }

    pub(crate) fn measured(&mut self, measurement: Measurement) {
        self.step(Input::Report(Report::Measured(measurement)));
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.agent.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.step(Input::Tick);
            assert!(self.agent.deadline().is_none_or(|due| due > self.now), "a tick settles");
        }
        self.now = until;
    }

    /// The power goes: everything that was not kept is lost.
    pub(crate) fn crash(&mut self) {
        self.agent = Agent::new(self.config.clone());
        let entries = self.disk.iter().map(|((table, key), value)| Entry {
            table,
            key: key.clone(),
            value: Some(value.clone()),
        });
        self.agent.restore(entries.collect()).expect("the disk reads back");
        self.runs.clear();
        self.pins.clear();
        self.cancelled.clear();
        self.listening.clear();
        self.said.clear();
    }

    /// What was said on `topic` since it was last asked for, parsed.
    pub(crate) fn take<M: serde::de::DeserializeOwned>(&mut self, topic: &Topic) -> Vec<M> {
        let asked = self.take_letters(topic);
        asked.iter().map(|envelope| envelope.open().expect("own words are readable")).collect()
    }

    fn take_letters(&mut self, topic: &Topic) -> Vec<Envelope> {
        let (asked, rest) = std::mem::take(&mut self.said)
            .into_iter()
            .partition::<Vec<_>, _>(|envelope| envelope.topic == *topic);
        self.said = rest;
        asked
    }

    pub(crate) fn take_results(&mut self) -> Vec<TaskResults> {
        self.take(&Topic::TaskResults)
    }

    pub(crate) fn take_result(&mut self) -> TaskResults {
        let mut results = self.take_results();
        assert_eq!(results.len(), 1, "exactly one result: {results:?}");
        results.remove(0)
    }

    pub(crate) fn take_updates(&mut self, round: &str) -> Vec<serde_json::Value> {
        self.take(&Topic::RoundUpdate { round: round_id(round), proplet: me() })
    }

    /// Updates to the round, as they travel.
    pub(crate) fn take_payloads(&mut self, round: &str) -> Vec<Bytes> {
        let topic = Topic::RoundUpdate { round: round_id(round), proplet: me() };
        self.take_letters(&topic).into_iter().map(|envelope| envelope.payload).collect()
    }

    pub(crate) fn take_alive(&mut self) -> Vec<PropletAlive> {
        self.take(&Topic::PropletAlive)
    }

    pub(crate) fn take_create(&mut self) -> PropletCreate {
        let mut creates = self.take(&Topic::PropletCreate);
        assert_eq!(creates.len(), 1, "introduces itself once a connection");
        creates.remove(0)
    }

    pub(crate) fn kept(&self, table: &str) -> usize {
        self.disk.keys().filter(|(name, _)| *name == table).count()
    }
}

pub(crate) fn me() -> PropletId {
    "proplet-1".parse().expect("an id")
}

pub(crate) fn task_id(text: &str) -> TaskId {
    text.parse().expect("an id")
}

pub(crate) fn round_id(text: &str) -> RoundId {
    text.parse().expect("an id")
}

pub(crate) fn held(tasks: &[(&str, u32)]) -> Option<Vec<HeldTask>> {
    Some(
        tasks.iter().map(|(id, attempt)| HeldTask { id: task_id(id), attempt: *attempt }).collect(),
    )
}

/// The address of a model.
pub(crate) fn uri(version: u64) -> String {
    ModelUri::global(ModelVersion(version)).to_string()
}

pub(crate) fn model(version: u64) -> Bytes {
    format!("{{\"w\":[0.0,0.0,0.0],\"b\":0.0,\"version\":{version}}}").into()
}

pub(crate) fn plain(task: &str, attempt: u32) -> TaskStart {
    let start = serde_json::from_value(serde_json::json!({
        "id": task, "name": task, "proplet_id": me(), "attempt": attempt, "file": "AGFzbQ==",
    }));
    TaskStart { directed: true, ..start.expect("a start") }
}

pub(crate) fn federated(task: &str, attempt: u32, round: &str, version: u64) -> TaskStart {
    let mut start = plain(task, attempt);
    start.env = BTreeMap::from([
        ("ROUND_ID".to_owned(), round.to_owned()),
        ("MODEL_URI".to_owned(), uri(version)),
        ("HYPERPARAMS".to_owned(), "{}".to_owned()),
    ]);
    start
}

pub(crate) fn stop(task: &str) -> TaskStop {
    TaskStop { id: task_id(task), proplet_id: Some(me()), broadcast: None, directed: true }
}

pub(crate) fn update(round: &str, version: u64) -> String {
    let base = uri(version);
    format!(
        "{{\"round_id\":\"{round}\",\"base_model_uri\":\"{base}\",\
         \"num_samples\":7,\"metrics\":{{\"loss\":0.73}},\
         \"update\":{{\"w\":[0.1,-0.30000000000000004,1e-300],\"b\":5e-324}}}}\n"
    )
}

pub(crate) fn printed(stdout: &str) -> Outcome {
    Outcome::Ok(GuestOutput {
        stdout: Bytes::from(stdout.to_owned()),
        update_file: None,
        state: None,
    })
}

pub(crate) fn failed(code: &str, message: &str) -> Outcome {
    let code = FailureCode(code.to_owned());
    Outcome::Failed(Failure { code, message: message.to_owned() })
}

pub(crate) fn numbers(update: &serde_json::Value) -> Update {
    protocol::message::read_update(update.to_string().as_bytes(), None).expect("an update")
}
