//! Rounds of SCAFFOLD: what their participants are told of the server's control variate, and what
//! becomes of it.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "these are tests")]

#[allow(
    unreachable_pub,
    clippy::wildcard_enum_match_arm,
    reason = "a module of tests, shared with others"
)]
mod story;

use std::{collections::BTreeMap, time::Duration};

use aggregate::Work;
use bytes::Bytes;
use protocol::{
    DType, Digest, Envelope, FailReason, Form, Input, Letter as _, Manifest, ModelUri,
    ModelVersion, Output, Rejection, Slot, Tensors, Topic,
    manifest::Format,
    message::{
        Model, RoundFailed, RoundStart, StrategySpec, UpdateAck, UpdateOffer, Verdict,
        read_variate_series,
    },
    tensor::safetensors,
};
use round::{Effect, Rules};
use serde_json::{Value, json};

use story::{Outputs, Story, forwarded, id, latest, said, start};

const MEMBERS: [&str; 3] = ["p0", "p1", "p2"];

fn tensors(form: Form, values: &[f64]) -> Tensors {
    let dtype = match form {
        Form::Json => DType::F64,
        Form::Safetensors => DType::F32,
    };
    let slot = |shape| Slot { dtype, shape };
    let schema = [("a".to_owned(), slot(vec![])), ("w".to_owned(), slot(vec![2]))];
    Tensors::unflatten(&schema.into_iter().collect(), values).unwrap()
}

fn model(form: Form, version: u64, values: &[f64]) -> Bytes {
    Model { version: ModelVersion(version), tensors: tensors(form, values), form }.write()
}

fn shown(version: u64, payload: &Bytes) -> Envelope {
    let uri = ModelUri::global(ModelVersion(version));
    Envelope { topic: Topic::Model { uri }, payload: payload.clone() }
}

fn asked(round: &str, version: u64, params: &[(&str, f64)]) -> RoundStart {
    let mut start = start(round, &MEMBERS, MEMBERS.len());
    start.model_uri = ModelUri::global(ModelVersion(version));
    let params: BTreeMap<String, f64> =
        params.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    start.strategy = Some(StrategySpec { name: "scaffold".to_owned(), params });
    start
}

fn update(round: &str, member: &str, version: u64, tensors: Value) -> Envelope {
    let update = json!({
        "round_id": round, "proplet_id": member, "num_samples": 10, "metrics": {},
        "base_model_uri": ModelUri::global(ModelVersion(version)).to_string(), "update": tensors,
    });
    forwarded(round, member, update.to_string().as_bytes())
}

/// The last word on the control variate of a round; nothing if there was none.
fn variate(outputs: &Outputs, round: &str) -> Option<Bytes> {
    let topic = Topic::RoundVariate { round: id(round) };
    said(outputs).into_iter().rfind(|it| it.topic == topic).map(|it| it.payload)
}

fn values(variate: &Bytes) -> Vec<f64> {
    match Form::of(variate) {
        Form::Json => {
            let said: Value = serde_json::from_slice(variate).unwrap();
            let w = said["w"].as_array().unwrap();
            [&said["a"], &w[0], &w[1]].iter().map(|it| it.as_f64().unwrap()).collect()
        }
        Form::Safetensors => safetensors::read(variate).unwrap().tensors.flatten(),
    }
}

/// Averages what is asked to be, and has the model server show what is published.
fn goes_on(story: &mut Story, outputs: Outputs) -> Outputs {
    let mut all = vec![];
    let mut queue = vec![outputs];
    while let Some(outputs) = queue.pop() {
        for output in &outputs {
            match output {
                Output::Effect(Effect::Aggregate(job)) => {
                    let report = round::average(job, &Work::default());
                    queue.push(story.tell(Input::Report(report)));
                }
                Output::Publish(Envelope { topic: Topic::ModelPublish { .. }, payload }) => {
                    let version = Model::read(payload).unwrap().version.0;
                    queue.push(story.hears(latest(version, Digest::of(payload))));
                }
                _ => {}
            }
        }
        all.extend(outputs);
    }
    all
}

fn refusal(outputs: &Outputs) -> RoundFailed {
    let failed = said(outputs);
    let failed = failed.iter().find(|it| matches!(it.topic, Topic::RoundFailed { .. }));
    failed.expect("the round fails").open().unwrap()
}

fn opened(story: &mut Story, start: &RoundStart, form: Form) -> Outputs {
    let mut outputs = story.hears(start.seal());
    let base = model(form, start.model_uri.version.0, &[1.0; 3]);
    outputs.extend(story.hears(shown(start.model_uri.version.0, &base)));
    outputs
}

/// A round in which each member's change of its control variate is the same.
fn runs(story: &mut Story, start: &RoundStart, change: f64) -> Outputs {
    let mut all = opened(story, start, Form::Json);
    for member in MEMBERS {
        let brought = json!({"a": 1, "w": [1, 1], "control/a": change, "control/w": [change, 0]});
        let version = start.model_uri.version.0;
        let heard = story.hears(update(start.round_id.as_str(), member, version, brought));
        all.extend(goes_on(story, heard));
    }
    all
}

#[test]
fn the_variate_begins_at_zero_grows_and_is_withdrawn_with_its_round() {
    for form in [Form::Json, Form::Safetensors] {
        let mut story = Story::new(Rules::default());
        let outputs = opened(&mut story, &asked("r1", 0, &[]), form);
        let first = variate(&outputs, "r1").expect("it is said");
        assert_eq!(values(&first), [0.0; 3]);
        assert_eq!(read_variate_series(&first).unwrap().as_str(), "r1");
        if form == Form::Safetensors {
            continue;
        }
        let outputs = runs(&mut story, &asked("r1", 0, &[]), 0.5);
        assert_eq!(variate(&outputs, "r1"), Some(Bytes::new()), "nobody needs it any more");
        let outputs = runs(&mut story, &asked("r2", 1, &[]), 0.25);
        let all = said(&outputs);
        let second = &all.iter().find(|it| it.topic.to_string().ends_with("r2/variate")).unwrap();
        assert_eq!(values(&second.payload), [0.5, 0.5, 0.0]);
        assert_eq!(read_variate_series(&second.payload).unwrap().as_str(), "r1", "it goes on");
        let outputs = opened(&mut story, &asked("r3", 2, &[]), Form::Json);
        assert_eq!(values(&variate(&outputs, "r3").unwrap()), [0.75, 0.75, 0.0]);
    }
}

#[test]
fn the_step_is_the_plain_mean_and_the_variate_moves_by_the_share_of_those_present() {
    let mut story = Story::new(Rules::default());
    let params = [("server_lr", 0.5), ("population", 12.0)];
    opened(&mut story, &asked("r1", 0, &params), Form::Json);
    let mut all = vec![];
    for (member, x, change) in [("p0", 1.0, 1.0), ("p1", 3.0, 2.0), ("p2", 5.0, 6.0)] {
        let brought = json!({"a": x, "w": [1, 1], "control/a": change, "control/w": [0, -change]});
        let heard = story.hears(update("r1", member, 0, brought));
        all.extend(goes_on(&mut story, heard));
    }
    let published = said(&all);
    let published = published.iter().find(|it| matches!(it.topic, Topic::ModelPublish { .. }));
    let made = Model::read(&published.unwrap().payload).unwrap().tensors.flatten();
    assert_eq!(made, [2.0, 1.0, 1.0], "1 + 0.5 * ((0 + 2 + 4) / 3)");
    let outputs = opened(&mut story, &asked("r2", 1, &params), Form::Json);
    let c = values(&variate(&outputs, "r2").unwrap());
    assert_eq!(c, [0.75, 0.0, -0.75], "3 of 12 times the mean change");
}

#[test]
fn it_is_said_again_after_a_reconnect_and_after_a_crash() {
    let mut story = Story::new(Rules::default());
    runs(&mut story, &asked("r1", 0, &[]), 0.5);
    let outputs = opened(&mut story, &asked("r2", 1, &[]), Form::Json);
    let before = variate(&outputs, "r2").unwrap();
    assert_eq!(variate(&story.passes(Duration::from_secs(1)), "r2"), None, "once is enough");
    let again = story.tell(Input::Connected { resumed: false });
    assert_eq!(variate(&again, "r2").as_ref(), Some(&before));
    assert_eq!(variate(&story.restarts(), "r2").as_ref(), Some(&before));
}

#[test]
fn a_failed_round_that_had_counted_ends_the_series() {
    let mut story = Story::new(Rules::default());
    runs(&mut story, &asked("r1", 0, &[]), 0.5);
    let mut start = asked("r2", 1, &[]);
    start.min_updates = Some(3);
    opened(&mut story, &start, Form::Json);
    let brought = json!({"a": 1, "w": [1, 1], "control/a": 1, "control/w": [1, 0]});
    story.hears(update("r2", "p0", 1, brought));
    let outputs = story.passes(Duration::from_secs(60));
    assert_eq!(refusal(&outputs).reason, FailReason::TooFewUpdates);
    let outputs = opened(&mut story, &asked("r3", 1, &[]), Form::Json);
    let anew = variate(&outputs, "r3").unwrap();
    assert_eq!((values(&anew), read_variate_series(&anew).unwrap().as_str()), (vec![0.0; 3], "r3"));
}

#[test]
fn a_failed_round_in_which_nothing_counted_ends_nothing() {
    let mut story = Story::new(Rules::default());
    runs(&mut story, &asked("r1", 0, &[]), 0.5);
    opened(&mut story, &asked("r2", 1, &[]), Form::Json);
    refusal(&story.passes(Duration::from_secs(60)));
    let outputs = opened(&mut story, &asked("r3", 1, &[]), Form::Json);
    let still = variate(&outputs, "r3").unwrap();
    assert_eq!(read_variate_series(&still).unwrap().as_str(), "r1");
}

#[test]
fn a_round_that_is_told_otherwise_begins_a_series_of_its_own() {
    let mut story = Story::new(Rules::default());
    runs(&mut story, &asked("r1", 0, &[]), 0.5);
    let outputs = opened(&mut story, &asked("r2", 1, &[("server_lr", 0.5)]), Form::Json);
    let anew = variate(&outputs, "r2").unwrap();
    assert_eq!((values(&anew), read_variate_series(&anew).unwrap().as_str()), (vec![0.0; 3], "r2"));
}

#[test]
fn a_round_of_another_workload_begins_a_series_of_its_own() {
    let image = |start: RoundStart, image: &str| RoundStart {
        task_wasm_image: Some(image.to_owned()),
        ..start
    };
    let mut story = Story::new(Rules::default());
    runs(&mut story, &image(asked("r1", 0, &[]), "registry.example/a:1"), 0.5);
    story.restarts();
    let series = |outputs: &Outputs, round: &str| {
        let said = variate(outputs, round).unwrap();
        (values(&said), read_variate_series(&said).unwrap().to_string())
    };
    // The participants have nothing of these.
    for (round, start) in [
        ("r2", image(asked("r2", 1, &[]), "registry.example/b:1")),
        ("r3", RoundStart { file: Some("AGFzbQ==".to_owned()), ..asked("r3", 1, &[]) }),
        ("r4", asked("r4", 1, &[])),
    ] {
        let outputs = opened(&mut story, &start, Form::Json);
        assert_eq!(series(&outputs, round), (vec![0.0; 3], round.to_owned()));
    }
    let outputs =
        opened(&mut story, &image(asked("r5", 1, &[]), "registry.example/a:1"), Form::Json);
    let goes_on = (vec![0.5, 0.5, 0.0], "r1".to_owned());
    assert_eq!(series(&outputs, "r5"), goes_on);
    assert_eq!(series(&story.restarts(), "r5"), goes_on, "also after a restart");
}

#[test]
fn one_hostile_variate_moves_it_no_more_than_ten_times_what_others_do() {
    let mut story = Story::new(Rules::default());
    opened(&mut story, &asked("r1", 0, &[]), Form::Json);
    let mut all = vec![];
    for (member, change) in [("p0", 1.0), ("p1", 1.0), ("p2", 1e300)] {
        let brought = json!({"a": 1, "w": [1, 1], "control/a": change, "control/w": [0.0, 0.0]});
        let heard = story.hears(update("r1", member, 0, brought));
        all.extend(goes_on(&mut story, heard));
    }
    let outputs = opened(&mut story, &asked("r2", 1, &[]), Form::Json);
    let c = values(&variate(&outputs, "r2").unwrap());
    assert!(c.iter().all(|value| value.abs() <= 4.0), "{c:?}");
}

#[test]
fn an_update_without_a_variate_is_rejected_and_the_round_goes_on() {
    let mut story = Story::new(Rules::default());
    opened(&mut story, &asked("r1", 0, &[]), Form::Json);
    let outputs = story.hears(update("r1", "p0", 0, json!({"a": 1, "w": [1, 1]})));
    let acks = said(&outputs);
    let ack = acks.iter().find(|it| matches!(it.topic, Topic::RoundAck { .. })).unwrap();
    let ack = UpdateAck::read(id("p0"), &ack.payload).unwrap();
    assert_eq!(ack.verdict, Verdict::Rejected(Rejection::Shape));
    assert!(variate(&outputs, "r1").is_none());
}

#[test]
fn what_comes_in_pieces_has_to_hold_both() {
    let mut story = Story::new(Rules::default());
    opened(&mut story, &asked("r1", 0, &[]), Form::Json);
    let both = tensors(Form::Json, &[1.0; 3]).schema().with_control().unwrap();
    let offer = |len: usize| UpdateOffer {
        round_id: id("r1"),
        proplet_id: id("p0"),
        base_model_uri: ModelUri::global(ModelVersion(0)),
        num_samples: 10,
        metrics: BTreeMap::new(),
        blob: Manifest::of(&vec![7; len], 64 << 10, Format::safetensors()).unwrap(),
    };
    let outputs = story.hears(forwarded("r1", "p0", &offer(both.byte_len() - 1).seal().payload));
    let acks = said(&outputs);
    let ack = acks.iter().find(|it| matches!(it.topic, Topic::RoundAck { .. })).unwrap();
    let ack = UpdateAck::read(id("p0"), &ack.payload).unwrap();
    assert_eq!(ack.verdict, Verdict::Rejected(Rejection::Shape));
    let outputs = story.hears(forwarded("r1", "p0", &offer(both.byte_len() + 100).seal().payload));
    assert!(outputs.iter().any(|it| matches!(it, Output::Effect(Effect::Begin(_)))));
}

#[test]
fn starts_that_cannot_be_served_are_refused_by_name() {
    let mut story = Story::new(Rules::default());
    let mut encoded = asked("r1", 0, &[]);
    encoded.encoding = Some("delta".to_owned());
    let failed = refusal(&story.hears(encoded.seal()));
    let why = failed.error.unwrap();
    assert_eq!(failed.reason, FailReason::BadStart);
    assert!(why.contains("delta") && why.contains("scaffold"), "{why}");

    let mut story = Story::new(Rules { variate_len_max: 100, ..Rules::default() });
    let outputs = opened(&mut story, &asked("r2", 0, &[]), Form::Json);
    let why = refusal(&outputs).error.unwrap();
    assert!(why.contains("scaffold") && why.contains("at most 100"), "{why}");

    let mut story = Story::new(Rules::default());
    story.hears(asked("r3", 0, &[]).seal());
    let base = Bytes::from(r#"{"control/w":[1.0],"version":0}"#);
    let why = refusal(&story.hears(shown(0, &base))).error.unwrap();
    assert!(why.contains("control/w"), "{why}");
}

#[test]
fn an_evaluation_has_no_variate() {
    let mut story = Story::new(Rules::default());
    let mut start = asked("r1", 0, &[]);
    start.purpose = protocol::message::Purpose::Evaluate;
    assert_eq!(variate(&opened(&mut story, &start, Form::Json), "r1"), None);
    assert_eq!(variate(&story.passes(Duration::from_secs(60)), "r1"), None);
}
