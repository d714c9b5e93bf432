//! Rounds on several lines of models at once: each line has its own versions.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "these are tests")]

#[allow(
    unreachable_pub,
    clippy::wildcard_enum_match_arm,
    reason = "a module of tests, shared with others"
)]
mod story;

use protocol::{
    Digest, Envelope, Letter as _, ModelLine, ModelUri, ModelVersion, Topic,
    message::{Model, ModelLatest},
};
use round::Rules;
use serde_json::json;

use story::{Story, id, job, letter, said, sent, start, tensors, update};

fn of(line: &str, version: u64) -> ModelUri {
    ModelUri { line: id(line), version: ModelVersion(version) }
}

fn shown(uri: &ModelUri, sha256: Digest) -> Envelope {
    let (version, topic) = (uri.version, uri.clone());
    ModelLatest { version, topic, sha256, bytes: 1, format: "json".into() }.seal()
}

fn model(uri: &ModelUri) -> Envelope {
    let payload = Model::new(uri.version, tensors(&[0.0; 3])).write();
    Envelope { topic: Topic::Model { uri: uri.clone() }, payload }
}

#[test]
fn two_lines_grow_beside_each_other_and_survive_a_death() {
    let mut story = Story::new(Rules::default());
    let bases = [of("global_model", 4), of("cnn", 0)];
    for (base, round) in bases.iter().zip(["r-a", "r-b"]) {
        story.hears(shown(base, Digest::of(b"base")));
        story.hears(model(base));
        let mut start = start(round, &["a"], 1);
        start.model_uri = base.clone();
        story.hears(start.seal());
    }
    let foreign = update("r-b", "a");
    let verdict = story.hears(sent(&foreign));
    let topic = Topic::RoundAck { round: id("r-b"), proplet: id("a") };
    assert_eq!(letter(&verdict, &topic)["reason"], "stale_base", "the base of another line");
    for (base, round) in bases.iter().zip(["r-a", "r-b"]) {
        story.hears(shown(base, Digest::of(b"base")));
        let mut payload = update(round, "a");
        payload["base_model_uri"] = json!(base.to_string());
        let out = story.hears(sent(&payload));
        let made = story.aggregates(&job(&out));
        let line: ModelLine = base.line.clone();
        let topic = Topic::ModelPublish { line };
        let published = said(&made).into_iter().find(|said| said.topic == topic).unwrap();
        assert_eq!(Model::read(&published.payload).unwrap().version, base.version.next());
        story.restarts();
        let again = story.hears(shown(base, Digest::of(b"base")));
        assert!(
            said(&again).iter().all(|said| said.topic != Topic::RoundComplete { round: id(round) })
        );
        let out = story.hears(shown(&base.next(), Digest::of(&published.payload)));
        let complete = letter(&out, &Topic::RoundComplete { round: id(round) });
        assert_eq!(complete["model_topic"], base.next().to_string());
    }
}
