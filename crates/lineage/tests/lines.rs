//! Several lines of models beside each other: each counts from 0, and none disturbs another.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "these are tests")]

use std::collections::BTreeMap;

use bytes::Bytes;
use lineage::{Effect, LINES_MAX, Lines, Note, OfLine, Offer, Refusal, Report, Rules, TABLES};
use protocol::{
    Digest, Entry, Envelope, Input, Machine as _, ModelLine, ModelUri, ModelVersion, Output,
    Timestamp, Topic, message::ModelLatest,
};

const RULES: Rules = Rules { model_len_max: 1000, message_len_max: 1000, shown_max: 1 };

/// A model server, its files and what the broker retains.
struct Story {
    lines: Lines,
    kept: BTreeMap<String, Vec<u8>>,
    files: BTreeMap<ModelUri, Bytes>,
    retained: BTreeMap<Topic, Bytes>,
    refused: Vec<(ModelLine, Refusal)>,
}

fn line(name: &str) -> ModelLine {
    name.parse().unwrap()
}

fn uri(name: &str, version: u64) -> ModelUri {
    ModelUri { line: line(name), version: ModelVersion(version) }
}

fn model(version: u64, value: f64) -> Bytes {
    format!("{{\"w\":[{value:?}],\"version\":{version}}}").into()
}

impl Story {
    fn new() -> Self {
        let mut story = Self {
            lines: Lines::new(RULES, Offer::read(model(0, 0.5)).unwrap()),
            kept: BTreeMap::new(),
            files: BTreeMap::new(),
            retained: BTreeMap::new(),
            refused: vec![],
        };
        story.tell(Input::Connected { resumed: false });
        story
    }

    fn restarts(&mut self) {
        self.lines = Lines::new(RULES, Offer::read(model(0, 0.5)).unwrap());
        let entries = self.kept.iter().map(|(key, value)| Entry {
            table: TABLES[0],
            key: key.clone(),
            value: Some(value.clone()),
        });
        self.lines.restore(entries.collect()).unwrap();
        self.retained.clear();
        self.tell(Input::Connected { resumed: false });
    }

    fn publish(&mut self, name: &str, version: u64, value: f64) {
        let topic = Topic::ModelPublish { line: line(name) };
        let envelope = Envelope { topic, payload: model(version, value) };
        self.tell(Input::News(OfLine::try_from(envelope).unwrap()));
    }

    fn tell(&mut self, input: Input<OfLine<lineage::News>, OfLine<Report>>) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for output in self.lines.step(input, Timestamp::ZERO) {
                match output {
                    Output::Keep(entry) => {
                        self.kept.insert(entry.key, entry.value.unwrap());
                    }
                    Output::Publish(envelope) => {
                        self.retained.insert(envelope.topic, envelope.payload);
                    }
                    Output::Effect(OfLine { line, it }) => {
                        let report = self.effect(&line, it);
                        inputs.extend(report.map(|it| Input::Report(OfLine { line, it })));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn effect(&mut self, line: &ModelLine, effect: Effect) -> Option<Report> {
        let at = |version| ModelUri { line: line.clone(), version };
        match effect {
            Effect::Scan { .. } => {
                let files = self.files.iter().filter(|(uri, _)| uri.line == *line);
                let found = files.map(|(uri, bytes)| lineage::Found {
                    version: uri.version,
                    content: Ok(lineage::FoundContent {
                        digest: Digest::of(bytes),
                        len: bytes.len() as u64,
                        form: protocol::Form::Json,
                        claims: None,
                    }),
                });
                Some(Report::Scanned(found.collect()))
            }
            Effect::Write { version, payload } => {
                self.files.insert(at(version), payload);
                Some(Report::Written { version })
            }
            Effect::Load { version } => {
                let bytes = self.files[&at(version)].clone();
                let digest = Digest::of(&bytes);
                Some(Report::Loaded { version, content: Ok((bytes, digest)) })
            }
            Effect::Note(Note::Refused { why, .. }) => {
                self.refused.push((line.clone(), why));
                None
            }
            Effect::Note(_) => None,
            other => panic!("{other:?}"),
        }
    }

    fn latest(&self, name: &str) -> Option<ModelLatest> {
        let payload = self.retained.get(&Topic::ModelLatest { line: line(name) })?;
        Some(serde_json::from_slice(payload).unwrap())
    }
}

#[test]
fn every_line_counts_for_itself_and_survives_a_restart() {
    let mut story = Story::new();
    for (version, value) in [(0, 1.0), (1, 2.0), (2, 3.0)] {
        story.publish("cnn", version, value);
    }
    story.publish("chars", 0, 9.0);
    story.publish("global_model", 1, 7.0);
    for _ in 0..2 {
        for (name, version, value) in [("cnn", 2, 3.0), ("chars", 0, 9.0), ("global_model", 1, 7.0)]
        {
            let latest = story.latest(name).unwrap();
            assert_eq!(latest.topic, uri(name, version));
            let shown = &story.retained[&Topic::Model { uri: uri(name, version) }];
            assert_eq!(shown, &model(version, value));
            assert_eq!(latest.sha256, Digest::of(shown));
        }
        story.restarts();
    }
    assert_eq!(story.retained.len(), 6 + 3, "every version of every line, and the newest of each");
}

#[test]
fn a_line_begins_with_version_0_and_there_is_no_end_of_refusals() {
    let mut story = Story::new();
    story.publish("cnn", 1, 1.0);
    assert_eq!(story.refused, [(line("cnn"), Refusal::Gap { expected: ModelVersion(0) })]);
    assert_eq!(story.latest("cnn"), None);
    for n in 0..LINES_MAX + 5 {
        story.publish(&format!("line-{n}"), 0, 1.0);
    }
    let refused = story.refused.iter().filter(|(_, why)| *why == Refusal::TooManyLines);
    assert_eq!(refused.count(), 6, "the default line is one of them");
    story.publish("line-0", 1, 2.0);
    assert_eq!(story.latest("line-0").unwrap().version, ModelVersion(1));
}
