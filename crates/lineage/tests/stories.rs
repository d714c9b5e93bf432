//! The line of models, told as stories: what is offered and found, and what is written and said.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "these are tests")]

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use lineage::{
    Effect, Found, FoundContent, Lineage, News, Note, Offer, Refusal, Report, Rules, TABLES,
};
use protocol::{
    Digest, Entry, Envelope, Form, Input, Machine as _, ModelLine, ModelUri, ModelVersion, Output,
    Tensor, Timestamp, Topic,
    message::{Model, ModelLatest},
};

const RULES: Rules = Rules { model_len_max: 1000, message_len_max: 1000, shown_max: 1 };

type Outputs = Vec<Output<Effect>>;

fn payload(version: u64, value: f64) -> Bytes {
    format!("{{\"w\":[{value:?}],\"version\":{version}}}").into()
}

fn offered(version: u64, value: f64) -> Envelope {
    Envelope {
        topic: Topic::ModelPublish { line: ModelLine::default() },
        payload: payload(version, value),
    }
}

/// A model server with a directory, a disk and a broker.
struct Story {
    lineage: Lineage,
    records: BTreeMap<String, Vec<u8>>,
    files: BTreeMap<ModelVersion, Bytes>,
    aside: Vec<Bytes>,
    is_full: bool,
    now: Timestamp,
    /// What the broker retains.
    retained: BTreeMap<Topic, Bytes>,
    notes: Vec<Note>,
    /// Loads that wait to be told.
    loads: Vec<ModelVersion>,
}

impl Story {
    fn new() -> Self {
        let initial = Offer::read(payload(0, 0.5)).unwrap();
        Self {
            lineage: Lineage::new(ModelLine::default(), RULES, Some(initial)),
            records: BTreeMap::new(),
            files: BTreeMap::new(),
            aside: vec![],
            is_full: false,
            now: Timestamp::ZERO,
            retained: BTreeMap::new(),
            notes: vec![],
            loads: vec![],
        }
    }

    /// Started, with versions 0 to `newest`.
    fn with(newest: u64) -> Self {
        let mut story = Self::new();
        story.tell(Input::Connected { resumed: false });
        (1..=newest).for_each(|version| story.hears(offered(version, version as f64)));
        assert_eq!(story.latest().unwrap().version.0, newest);
        story
    }

    fn restarts(&mut self) {
        let initial = Offer::read(payload(0, 0.5)).unwrap();
        self.lineage = Lineage::new(ModelLine::default(), RULES, Some(initial));
        self.notes.clear();
        let entries = self.records.iter().map(|(key, value)| Entry {
            table: TABLES[0],
            key: key.clone(),
            value: Some(value.clone()),
        });
        self.lineage.restore(entries.collect()).unwrap();
        self.tell(Input::Tick);
    }

    fn hears(&mut self, envelope: Envelope) {
        self.tell(Input::News(News::try_from(envelope).unwrap()));
    }

    fn passes(&mut self, time: Duration) {
        self.now = self.now + time;
        self.tell(Input::Tick);
    }

    /// Steps, and does what is asked for until nothing is left to do.
    fn tell(&mut self, input: Input<News, Report>) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let outputs = self.lineage.step(input, self.now);
            let heard = self.perform(outputs);
            inputs.extend(heard);
        }
    }

    fn perform(&mut self, outputs: Outputs) -> Vec<Input<News, Report>> {
        let mut heard = vec![];
        for output in outputs {
            match output {
                Output::Keep(entry) => {
                    self.records.insert(entry.key, entry.value.unwrap());
                }
                Output::Publish(envelope) => {
                    if matches!(envelope.topic, Topic::ModelLatest { .. }) {
                        heard.push(Input::News(News::try_from(envelope.clone()).unwrap()));
                    }
                    self.retained.insert(envelope.topic, envelope.payload);
                }
                Output::Effect(effect) => heard.extend(self.effect(effect).map(Input::Report)),
                other => panic!("{other:?}"),
            }
        }
        heard
    }

    fn effect(&mut self, effect: Effect) -> Option<Report> {
        match effect {
            Effect::Scan { unknown_from } => {
                let found = self.files.iter().map(|(version, bytes)| {
                    let claims = (*version >= unknown_from).then(|| {
                        Offer::read(bytes.clone()).map(|o| o.version()).map_err(|e| e.to_string())
                    });
                    let (digest, len) = (Digest::of(bytes), bytes.len() as u64);
                    Found {
                        version: *version,
                        content: Ok(FoundContent { digest, len, form: Form::of(bytes), claims }),
                    }
                });
                Some(Report::Scanned(found.collect()))
            }
            Effect::Quarantine { version } => {
                self.aside.extend(self.files.remove(&version));
                None
            }
            Effect::Write { version, .. } if self.is_full => {
                Some(Report::WriteFailed { version, error: "no space left".into() })
            }
            Effect::Write { version, payload } => {
                self.aside.extend(self.files.insert(version, payload));
                Some(Report::Written { version })
            }
            Effect::Load { version } => {
                self.loads.push(version);
                let content = self.files.get(&version).cloned();
                let content = content.map(|bytes| (bytes.clone(), Digest::of(&bytes)));
                Some(Report::Loaded { version, content: content.ok_or_else(|| "gone".into()) })
            }
            Effect::Note(note) => {
                self.notes.push(note);
                None
            }
            other => panic!("nothing is in pieces here: {other:?}"),
        }
    }

    fn latest(&self) -> Option<ModelLatest> {
        let payload = self.retained.get(&Topic::ModelLatest { line: ModelLine::default() })?;
        Some(serde_json::from_slice(payload).unwrap())
    }

    fn published(&self) -> Vec<u64> {
        let versions = self.retained.keys().filter_map(|topic| match topic {
            Topic::Model { uri } => Some(uri.version.0),
            _ => None,
        });
        versions.collect()
    }

    fn refusals(&self) -> Vec<Refusal> {
        let refusals = self.notes.iter().filter_map(|note| match note {
            Note::Refused { why, .. } => Some(*why),
            _ => None,
        });
        refusals.collect()
    }

    /// What is published is what was written, every version of it.
    fn is_sound(&self) {
        for (topic, payload) in &self.retained {
            let Topic::Model { uri: ModelUri { version, .. } } = topic else { continue };
            let model = Model::read(payload).unwrap();
            assert_eq!(model.version, *version);
        }
    }
}

#[test]
fn version_0_is_there_before_the_broker_is_and_published_when_it_is() {
    let mut story = Story::new();
    assert_eq!(story.lineage.deadline(), Some(Timestamp::ZERO), "reads its files at once");
    story.tell(Input::Tick);
    assert_eq!(story.files[&ModelVersion(0)], payload(0, 0.5));
    assert_eq!(story.published(), [] as [u64; 0]);
    story.tell(Input::Connected { resumed: true });
    assert_eq!(story.published(), [0]);
    let latest = story.latest().unwrap();
    assert_eq!(latest.sha256, Digest::of(&payload(0, 0.5)));
    assert_eq!((latest.bytes, latest.format.as_str()), (payload(0, 0.5).len() as u64, "json"));
}

#[test]
fn versions_follow_each_other_and_are_never_overwritten() {
    let mut story = Story::with(2);
    story.hears(offered(4, 4.0));
    story.hears(offered(1, 9.0));
    story.hears(offered(u64::MAX, 9.0));
    let expected = ModelVersion(3);
    assert_eq!(
        story.refusals(),
        [Refusal::Gap { expected }, Refusal::Conflict, Refusal::Gap { expected }]
    );
    assert_eq!(story.files[&ModelVersion(1)], payload(1, 1.0));
    story.hears(offered(3, 3.0));
    assert_eq!(story.published(), [0, 1, 2, 3]);
    story.is_sound();
}

#[test]
fn a_repeated_offer_is_said_again() {
    let mut story = Story::with(2);
    story.retained.clear();
    story.hears(offered(1, 1.0));
    assert_eq!(story.published(), [1]);
    assert_eq!(story.latest().unwrap().version.0, 2);
    assert!(story.aside.is_empty(), "and not written again");
}

#[test]
fn what_is_too_large_or_no_model_is_refused() {
    let mut story = Story::with(0);
    let large = format!("{{\"w\":[{}1],\"version\":1}}", "1,".repeat(1000));
    story.hears(Envelope {
        topic: Topic::ModelPublish { line: ModelLine::default() },
        payload: large.into(),
    });
    assert!(matches!(story.refusals()[..], [Refusal::TooLarge { len_max: 1000, .. }]));
    for text in [
        "",
        "{}",
        "[]",
        "{\"version\":-1}",
        "{\"version\":1,\"w\":\"x\"}",
        "{\"w\":[NaN],\"version\":1}",
        "{\"w\":1e999,\"version\":1}",
    ] {
        let envelope = Envelope {
            topic: Topic::ModelPublish { line: ModelLine::default() },
            payload: text.into(),
        };
        assert!(News::try_from(envelope).is_err(), "{text}");
    }
    let envelope = Envelope { topic: Topic::RoundStart, payload: "{}".into() };
    assert!(News::try_from(envelope).is_err());
    assert_eq!(story.published(), [0]);
}

#[test]
fn a_full_disk_is_tried_again_and_nothing_is_said_before() {
    let mut story = Story::with(1);
    story.is_full = true;
    story.hears(offered(2, 2.0));
    story.hears(offered(2, 2.0));
    story.hears(offered(3, 3.0));
    assert_eq!(story.latest().unwrap().version.0, 1);
    story.passes(Duration::from_secs(2));
    assert_eq!(story.latest().unwrap().version.0, 1);
    story.is_full = false;
    story.passes(Duration::from_secs(2));
    assert_eq!(story.published(), [0, 1, 2, 3]);
    assert_eq!(story.latest().unwrap().version.0, 3);
    assert_eq!(story.lineage.deadline(), None);
}

#[test]
fn a_broker_that_lost_everything_gets_everything_the_newest_first() {
    let mut story = Story::with(200);
    story.retained.clear();
    story.loads.clear();
    story.tell(Input::Connected { resumed: false });
    assert_eq!(story.published().len(), 201);
    assert_eq!(story.loads[0].0, 200);
    assert_eq!(story.latest().unwrap().version.0, 200);
}

#[test]
fn a_broker_that_came_back_with_an_old_session_gets_the_newest_models() {
    let mut story = Story::with(200);
    story.retained.clear();
    story.loads.clear();
    story.tell(Input::Connected { resumed: true });
    assert_eq!(story.latest().unwrap().version.0, 200);
    assert_eq!(story.published(), (185..=200).collect::<Vec<u64>>(), "all would be too much");
}

#[test]
fn a_replay_that_a_reconnect_cuts_off_begins_again() {
    let mut story = Story::with(200);
    story.retained.clear();
    let begun = story.lineage.step(Input::Connected { resumed: false }, story.now);
    story.tell(Input::Connected { resumed: true });
    let heard = story.perform(begun);
    heard.into_iter().for_each(|input| story.tell(input));
    assert_eq!(story.published().len(), 201, "not only the newest");
}

#[test]
fn a_broker_that_does_not_echo_is_not_flooded() {
    let mut story = Story::with(200);
    let mut loaded = 0;
    let mut inputs = vec![Input::Connected { resumed: false }];
    while let Some(input) = inputs.pop() {
        for output in story.lineage.step(input, story.now) {
            if let Output::Effect(effect @ Effect::Load { .. }) = output {
                loaded += 1;
                inputs.extend(story.effect(effect).map(Input::Report));
            }
        }
    }
    assert!(loaded < 80, "{loaded} were loaded before the broker showed that it keeps up");
    let deadline = story.lineage.deadline().unwrap();
    story.now = deadline;
    story.tell(Input::Tick);
    assert!(story.loads.len() > 80, "but not for ever");
}

#[test]
fn a_restart_publishes_what_was_recorded_and_nothing_is_written_again() {
    let mut story = Story::with(3);
    story.retained.clear();
    story.restarts();
    story.tell(Input::Connected { resumed: true });
    assert_eq!(story.published(), [0, 1, 2, 3]);
    assert!(story.aside.is_empty());
}

#[test]
fn a_death_between_writing_and_recording_loses_nothing() {
    let mut story = Story::with(1);
    story.files.insert(ModelVersion(2), payload(2, 2.0));
    story.restarts();
    story.tell(Input::Connected { resumed: false });
    assert!(story.notes.contains(&Note::Adopted { version: ModelVersion(2) }));
    assert_eq!(story.latest().unwrap().version.0, 2);
    story.hears(offered(2, 2.0));
    assert_eq!(story.refusals(), [], "the coordinator's repetition is the same model");
}

#[test]
fn files_that_do_not_belong_are_not_published() {
    let mut story = Story::with(1);
    story.files.insert(ModelVersion(2), payload(7, 2.0));
    story.files.insert(ModelVersion(5), payload(5, 5.0));
    story.restarts();
    story.tell(Input::Connected { resumed: false });
    assert_eq!(story.published(), [0, 1]);
    assert!(story.notes.contains(&Note::Stray { version: ModelVersion(5) }));
    assert_eq!(story.aside, [payload(7, 2.0)]);
    story.hears(offered(2, 2.0));
    assert_eq!(story.latest().unwrap().version.0, 2);
}

#[test]
fn a_damaged_file_is_never_published_and_heals_by_the_same_bytes_only() {
    for newest in [false, true] {
        let version = if newest { 2 } else { 1 };
        let mut story = Story::with(2);
        story.files.insert(ModelVersion(version), payload(version, 6.0));
        story.retained.clear();
        story.restarts();
        story.tell(Input::Connected { resumed: false });
        assert!(!story.published().contains(&version));
        let shown = if newest { 1 } else { 2 };
        assert_eq!(story.latest().unwrap().version.0, shown, "the newest that is intact");
        assert_eq!(story.aside, [payload(version, 6.0)]);
        story.hears(offered(version, 6.0));
        assert_eq!(story.refusals(), [Refusal::Conflict]);
        story.hears(offered(version, version as f64));
        assert_eq!(story.published(), [0, 1, 2]);
        assert_eq!(story.latest().unwrap().version.0, 2);
    }
}

#[test]
fn the_version_after_a_damaged_newest_is_still_the_next_one() {
    let mut story = Story::with(2);
    story.files.remove(&ModelVersion(2));
    story.restarts();
    story.tell(Input::Connected { resumed: false });
    assert!(story.notes.contains(&Note::Missing { version: ModelVersion(2) }));
    story.hears(offered(3, 3.0));
    assert_eq!(story.latest().unwrap().version.0, 3);
}

#[test]
fn a_damaged_version_0_comes_back_from_the_configuration() {
    let mut story = Story::with(1);
    story.files.insert(ModelVersion(0), "{}".into());
    story.restarts();
    story.tell(Input::Connected { resumed: false });
    assert_eq!(story.published(), [0, 1]);
    assert_eq!(story.files[&ModelVersion(0)], payload(0, 0.5));
}

#[test]
fn a_file_that_rots_while_running_is_found_when_it_is_read() {
    let mut story = Story::with(2);
    story.files.insert(ModelVersion(2), payload(2, 6.0));
    story.retained.clear();
    story.tell(Input::Connected { resumed: false });
    assert_eq!(story.published(), [0, 1]);
    assert_eq!(story.latest().unwrap().version.0, 1);
}

#[test]
fn what_is_offered_while_the_files_are_read_is_not_lost() {
    let mut story = Story::new();
    let outputs = story.lineage.step(Input::Connected { resumed: false }, story.now);
    assert_eq!(outputs, [Output::Effect(Effect::Scan { unknown_from: ModelVersion(0) })]);
    story.hears(offered(1, 1.0));
    let failed = Report::ScanFailed { error: "no".into() };
    story.tell(Input::Report(failed));
    story.passes(Duration::from_secs(2));
    story.hears(offered(1, 1.0));
    assert_eq!(story.latest().unwrap().version.0, 1);
}

#[test]
fn a_model_is_published_in_the_form_it_came_in() {
    let binary = |version: u64, value: f32| {
        let w = Tensor::from_f32(vec![1], &[value]).unwrap();
        let tensors = [("w".to_owned(), w)].into_iter().collect();
        Model { version: ModelVersion(version), tensors, form: Form::Safetensors }.write()
    };
    let publish =
        |payload| Envelope { topic: Topic::ModelPublish { line: ModelLine::default() }, payload };
    let mut story = Story::with(0);
    let hear = |story: &mut Story, payload: Bytes| {
        story.tell(Input::News(News::try_from(publish(payload)).unwrap()));
    };
    hear(&mut story, binary(1, 0.5));
    assert_eq!(
        story.retained[&Topic::Model { uri: ModelUri::global(ModelVersion(1)) }],
        binary(1, 0.5)
    );
    assert_eq!(story.latest().unwrap().format, "safetensors");
    hear(&mut story, binary(1, 0.25));
    assert_eq!(story.refusals(), [Refusal::Conflict]);
    story.restarts();
    story.tell(Input::Connected { resumed: false });
    let latest = story.latest().unwrap();
    assert_eq!((latest.version, latest.format.as_str()), (ModelVersion(1), "safetensors"));
    hear(&mut story, payload(2, 1.5));
    assert_eq!(story.latest().unwrap().format, "json");
    for bad in [&binary(3, 0.5)[..20], &binary(3, f32::NAN), b"\0\0\0\0\0\0\0\0"] {
        assert!(News::try_from(publish(Bytes::copy_from_slice(bad))).is_err());
    }
    story.is_sound();
}
