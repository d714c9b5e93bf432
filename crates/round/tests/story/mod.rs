//! A coordinator with a disk and a clock, to tell stories about.

#![allow(dead_code, reason = "each test binary tells other stories")]

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use protocol::{
    AbsentReason, Digest, Entry, Envelope, Input, Letter as _, Machine as _, ModelLine, ModelUri,
    ModelVersion, Output, PropletId, Rejection, RoundId, Tensor, Tensors, Timestamp, Topic,
    message::{
        Hyperparams, Model, ModelLatest, Origin, RoundAbsent, RoundStart, UpdateAck, Verdict,
        forward,
    },
};
use round::{Beside, Effect, Job, Made, News, Note, Report, Rounds, Rules, TABLES};
use serde_json::{Value, json};

pub type Outputs = Vec<Output<Effect>>;

/// What is on disk: exactly what was kept.
#[derive(Clone, Debug, Default)]
pub struct Disk(BTreeMap<(&'static str, String), Vec<u8>>);

impl Disk {
    pub fn write(&mut self, outputs: &Outputs) {
        for output in outputs {
            let Output::Keep(entry) = output else { continue };
            assert!(TABLES.contains(&entry.table));
            let key = (entry.table, entry.key.clone());
            match entry.value.clone() {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }

    pub fn entries(&self) -> Vec<Entry> {
        let entries = self.0.iter().map(|((table, key), value)| Entry {
            table,
            key: key.clone(),
            value: Some(value.clone()),
        });
        entries.collect()
    }

    pub fn forget(&mut self, table: &str) {
        self.0.retain(|(name, _), _| *name != table);
    }

    pub fn tables(&self) -> Vec<&'static str> {
        let mut tables: Vec<_> = self.0.keys().map(|(table, _)| *table).collect();
        tables.dedup();
        tables
    }
}

pub struct Story {
    pub rules: Rules,
    pub rounds: Rounds,
    pub disk: Disk,
    pub now: Timestamp,
}

impl Story {
    /// A coordinator that is connected and knows that model 0 is the newest.
    pub fn new(rules: Rules) -> Self {
        let mut story = Self::unconnected(rules);
        story.tell(Input::Connected { resumed: false });
        story.hears(latest(0, Digest::of(b"model 0")));
        story
    }

    pub fn unconnected(rules: Rules) -> Self {
        let now = Timestamp::from_micros(1_768_000_000_000_000);
        Self { rules, rounds: Rounds::new(rules), disk: Disk::default(), now }
    }

    /// With round `r` open for `participants`, its base model known.
    pub fn opened(participants: &[&str], k: usize) -> Self {
        let mut story = Self::new(Rules::default());
        story.hears(start("r", participants, k).seal());
        story.hears(base(0));
        story
    }

    pub fn tell(&mut self, input: Input<News, Report>) -> Outputs {
        let outputs = self.rounds.step(input, self.now);
        self.disk.write(&outputs);
        outputs
    }

    #[track_caller]
    pub fn hears(&mut self, envelope: Envelope) -> Outputs {
        self.tell(Input::News(News::try_from(envelope).unwrap()))
    }

    pub fn passes(&mut self, time: Duration) -> Outputs {
        self.now = self.now + time;
        self.tell(Input::Tick)
    }

    /// Kill -9 and start again, with nothing but the disk.
    pub fn restarts(&mut self) -> Outputs {
        self.rounds = Rounds::new(self.rules);
        self.rounds.restore(self.disk.entries()).unwrap();
        assert_eq!(self.rounds.deadline(), None, "nothing expires before the broker was there");
        self.tell(Input::Connected { resumed: true })
    }

    /// The shell averages, exactly.
    pub fn aggregates(&mut self, job: &Job) -> Outputs {
        let report = average(job);
        self.tell(Input::Report(report))
    }
}

/// FedAvg as the contract has it.
pub fn average(job: &Job) -> Report {
    let total: u64 = job.members.iter().map(|member| member.num_samples).sum();
    let mut sums = vec![0.0; job.schema.parameters()];
    for member in &job.members {
        let tensors = member.values.tensors(&job.schema).unwrap().unwrap();
        for (sum, value) in sums.iter_mut().zip(tensors.flatten()) {
            *sum += member.num_samples as f64 * value;
        }
    }
    let values: Vec<f64> = sums.into_iter().map(|sum| sum / total as f64).collect();
    let tensors = Tensors::unflatten(&job.schema, &values).unwrap();
    Report::Aggregated {
        round: job.round.clone(),
        model: Made::Here(tensors),
        beside: Beside::default(),
    }
}

pub fn id<T: std::str::FromStr<Err = protocol::IdError>>(text: &str) -> T {
    text.parse().unwrap()
}

pub fn start(round: &str, participants: &[&str], k: usize) -> RoundStart {
    RoundStart {
        round_id: id(round),
        model_uri: ModelUri::global(ModelVersion(0)),
        task_wasm_image: None,
        file: None,
        participants: participants.iter().map(|name| id(name)).collect(),
        hyperparams: Hyperparams::default(),
        k_of_n: k,
        timeout_s: 30,
        min_updates: None,
        strategy: None,
        clip: None,
        share_max: None,
        env: BTreeMap::new(),
        session: None,
        encoding: None,
        purpose: protocol::message::Purpose::Train,
        staleness_max: None,
        traceparent: None,
    }
}

pub fn tensors(values: &[f64]) -> Tensors {
    let tensor = Tensor::new(vec![values.len()], values.to_vec()).unwrap();
    [("w".to_owned(), tensor)].into_iter().collect()
}

/// Model `version` at its own topic: three numbers.
pub fn base(version: u64) -> Envelope {
    let version = ModelVersion(version);
    let model = Model::new(version, tensors(&[0.0; 3]));
    Envelope {
        topic: Topic::Model { uri: ModelUri::global(version) },
        payload: model.seal().payload,
    }
}

pub fn latest(version: u64, sha256: Digest) -> Envelope {
    let version = ModelVersion(version);
    let topic = ModelUri::global(version);
    ModelLatest { version, topic, sha256, bytes: 1, format: "json".into() }.seal()
}

pub fn update(round: &str, proplet: &str) -> Value {
    json!({
        "round_id": round, "proplet_id": proplet,
        "base_model_uri": ModelUri::global(ModelVersion(0)).to_string(),
        "num_samples": 10, "metrics": {"loss": 0.5}, "update": {"w": [1.0, 2.0, 3.0]},
    })
}

/// What the manager makes of a payload that came from `proplet` on the topic of `round`.
pub fn forwarded(round: &str, proplet: &str, payload: &[u8]) -> Envelope {
    let origin = Origin { round_id: id(round), proplet_id: id(proplet) };
    let payload = forward(payload, &origin, Timestamp::ZERO);
    Envelope { topic: Topic::ForwardedUpdate, payload }
}

pub fn sent(payload: &Value) -> Envelope {
    let name = |field: &str| payload[field].as_str().unwrap().to_owned();
    forwarded(&name("round_id"), &name("proplet_id"), payload.to_string().as_bytes())
}

pub fn absent(round: &str, proplet: &str) -> Envelope {
    let (round_id, proplet_id) = (id(round), id(proplet));
    RoundAbsent { round_id, proplet_id, reason: AbsentReason::NotAlive, error: None }.seal()
}

/// Everything that is said, in order.
pub fn said(outputs: &Outputs) -> Vec<Envelope> {
    outputs.iter().filter_map(|output| spoken(output).cloned()).collect()
}

fn spoken(output: &Output<Effect>) -> Option<&Envelope> {
    match output {
        Output::Promise(envelope) | Output::Publish(envelope) => Some(envelope),
        Output::Keep(_) | Output::Listen(_) | Output::Unlisten(_) | Output::Effect(_) => None,
    }
}

pub fn verdicts(outputs: &Outputs) -> Vec<(RoundId, PropletId, Verdict)> {
    said(outputs)
        .into_iter()
        .filter_map(|envelope| match envelope.topic {
            Topic::RoundAck { round, proplet } => {
                let ack = UpdateAck::read(proplet.clone(), &envelope.payload).unwrap();
                assert_eq!(ack.round_id, round);
                Some((round, proplet, ack.verdict))
            }
            _ => None,
        })
        .collect()
}

/// The only verdict, if there is one.
#[track_caller]
pub fn verdict(outputs: &Outputs) -> Option<Verdict> {
    let verdicts = verdicts(outputs);
    assert!(verdicts.len() <= 1, "{verdicts:?}");
    verdicts.first().map(|(_, _, verdict)| *verdict)
}

pub const ACCEPTED: Option<Verdict> = Some(Verdict::Accepted);

pub const fn rejected(reason: Rejection) -> Option<Verdict> {
    Some(Verdict::Rejected(reason))
}

pub fn jobs(outputs: &Outputs) -> Vec<Job> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Effect(Effect::Aggregate(job)) => Some(job.clone()),
            _ => None,
        })
        .collect()
}

#[track_caller]
pub fn job(outputs: &Outputs) -> Job {
    let mut jobs = jobs(outputs);
    assert_eq!(jobs.len(), 1, "{outputs:#?}");
    jobs.remove(0)
}

pub fn notes(outputs: &Outputs) -> Vec<Note> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Effect(Effect::Note(note)) => Some(note.clone()),
            _ => None,
        })
        .collect()
}

/// Payloads of the models that are published.
pub fn models(outputs: &Outputs) -> Vec<Bytes> {
    said(outputs)
        .into_iter()
        .filter(|envelope| envelope.topic == Topic::ModelPublish { line: ModelLine::default() })
        .map(|envelope| envelope.payload)
        .collect()
}

/// What is said on the topic, read as JSON.
#[track_caller]
pub fn letter(outputs: &Outputs, topic: &Topic) -> Value {
    let found = said(outputs).into_iter().find(|envelope| envelope.topic == *topic);
    let found = found.unwrap_or_else(|| panic!("nothing on {topic}: {outputs:#?}"));
    serde_json::from_slice(&found.payload).unwrap()
}

pub fn opened() -> Topic {
    Topic::RoundOpened { round: id("r") }
}

pub fn complete() -> Topic {
    Topic::RoundComplete { round: id("r") }
}

pub fn failed() -> Topic {
    Topic::RoundFailed { round: id("r") }
}
