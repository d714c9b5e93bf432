//! Rounds that ask for an encoding, told as stories: what is decoded counts as if it had come
//! plain, and what cannot be decoded is refused by its reason.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "these are tests")]

#[allow(
    unreachable_pub,
    clippy::wildcard_enum_match_arm,
    reason = "a module of tests, shared with others"
)]
mod story;

use bytes::Bytes;
use encoding::{Encoding, encode};
use protocol::{
    Digest, Envelope, Form, Letter as _, ModelUri, ModelVersion, Rejection, Tensor, Tensors, Topic,
    message::{Model, RoundStart, Update},
};
use serde_json::json;
use story::*;

const ALL: &str = "delta+topk:0.5+int8+deflate";

fn singles(values: &[f32]) -> Tensors {
    [("w".to_owned(), Tensor::from_f32(vec![values.len()], values).unwrap())].into_iter().collect()
}

fn base_of(version: u64, values: &[f32]) -> Envelope {
    let version = ModelVersion(version);
    let model = Model { version, tensors: singles(values), form: Form::Safetensors };
    Envelope { topic: Topic::Model { uri: ModelUri::global(version) }, payload: model.write() }
}

fn asking(encoding: &str) -> RoundStart {
    RoundStart { encoding: Some(encoding.to_owned()), ..start("r", &["a", "b"], 2) }
}

const BASE: [f32; 4] = [1.0, 2.0, 3.0, 4.0];

fn opened_with(encoding: &str) -> Story {
    let mut story = Story::new(round::Rules::default());
    story.hears(asking(encoding).seal());
    story.hears(base_of(0, &BASE));
    story
}

fn said(proplet: &str) -> Update {
    Update {
        round_id: id("r"),
        proplet_id: id(proplet),
        base_model_uri: ModelUri::global(ModelVersion(0)),
        num_samples: 10,
        metrics: [("loss".to_owned(), 0.5)].into(),
        update: Tensors::default(),
        form: Form::Safetensors,
    }
}

fn encoded(encoding: &str, said: &Update, base: &[f32], update: &[f32]) -> Bytes {
    let encoding: Encoding = encoding.parse().unwrap();
    let tensors = (&singles(update), &singles(base));
    encode(&encoding, tensors, None, Digest::of(b"dice"), said.metadata()).unwrap().file
}

fn file(encoding: &str, proplet: &str, update: &[f32]) -> Envelope {
    forwarded("r", proplet, &encoded(encoding, &said(proplet), &BASE, update))
}

#[test]
fn what_is_written_without_loss_counts_as_if_it_had_come_plain() {
    for encoding in ["deflate", "delta", "delta+deflate"] {
        let mut story = opened_with(encoding);
        let (a, b) = ([1.5, 2.0, 3.0, 4.25], [0.5, 2.0, -3.0, 4.0]);
        assert_eq!(verdict(&story.hears(file(encoding, "a", &a))), ACCEPTED, "{encoding}");
        let closed = story.hears(file(encoding, "b", &b));
        let job = job(&closed);
        let values: Vec<Vec<f32>> = job
            .members
            .iter()
            .map(|member| {
                let tensors = member.values.tensors(&job.schema).unwrap().unwrap();
                tensors.get("w").unwrap().to_f32()
            })
            .collect();
        assert_eq!(values, [a, b], "{encoding}");
    }
}

#[test]
fn an_update_is_known_again_whenever_it_was_forwarded_also_when_the_round_has_ended() {
    for encoding in ["int8", ALL] {
        let mut story = opened_with(encoding);
        let payload = encoded(encoding, &said("a"), &BASE, &[2.0; 4]);
        let later = |seconds: u64| {
            let origin = protocol::message::Origin { round_id: id("r"), proplet_id: id("a") };
            let at = protocol::Timestamp::from_micros(seconds * 1_000_000);
            let payload = protocol::message::forward(&payload, &origin, at);
            Envelope { topic: Topic::ForwardedUpdate, payload }
        };
        assert_eq!(verdict(&story.hears(later(1))), ACCEPTED);
        let again = story.hears(later(2));
        assert_eq!(verdict(&again), ACCEPTED, "{:?}", notes(&again));
        let other = story.hears(file(encoding, "a", &[3.0; 4]));
        assert_eq!(verdict(&other), rejected(Rejection::Duplicate));
        let closed = story.hears(file(encoding, "b", &[2.0; 4]));
        let out = story.aggregates(&job(&closed));
        let digest = Digest::of(&models(&out)[0]);
        story.hears(latest(1, digest));
        assert_eq!(verdict(&story.hears(later(3))), ACCEPTED, "the round has ended");
    }
}

#[test]
fn a_crash_does_not_cost_the_numbers_of_the_base_model() {
    let mut story = opened_with(ALL);
    assert_eq!(verdict(&story.hears(file(ALL, "a", &[2.0; 4]))), ACCEPTED);
    story.restarts();
    story.hears(latest(0, Digest::of(b"model 0")));
    let closed = story.hears(file(ALL, "b", &[2.0; 4]));
    assert_eq!(verdict(&closed), ACCEPTED);
    let again = story.restarts();
    assert_eq!(jobs(&again), jobs(&closed), "the frozen set is the same");
    story.hears(latest(0, Digest::of(b"model 0")));
    let out = story.aggregates(&job(&closed));
    let digest = Digest::of(&models(&out)[0]);
    story.hears(latest(1, digest));
    assert_eq!(story.disk.tables(), ["made", "outcome"], "nothing of it is left behind");
}

#[test]
fn the_model_of_a_round_is_the_base_of_the_next_without_being_fetched() {
    let mut story = opened_with("delta");
    story.hears(file("delta", "a", &[2.0; 4]));
    let closed = story.hears(file("delta", "b", &[2.0; 4]));
    let out = story.aggregates(&job(&closed));
    let digest = Digest::of(&models(&out)[0]);
    story.hears(latest(1, digest));
    let next = RoundStart {
        round_id: id("r-2"),
        model_uri: ModelUri::global(ModelVersion(1)),
        participants: [id("a")].into(),
        ..asking("delta")
    };
    story.hears(next.seal());
    let base_model_uri = ModelUri::global(ModelVersion(1));
    let said = Update { round_id: id("r-2"), base_model_uri, ..said("a") };
    let payload = encoded("delta", &said, &[2.0; 4], &[2.5; 4]);
    let out = story.hears(forwarded("r-2", "a", &payload));
    assert_eq!(verdict(&out), ACCEPTED, "{:?}", notes(&out));
}

#[test]
fn what_does_not_decode_is_refused_by_its_reason_and_the_round_goes_on() {
    let mut story = opened_with(ALL);
    let honest = encoded(ALL, &said("a"), &BASE, &[2.0; 4]);
    let from_a = |payload: &[u8]| forwarded("r", "a", payload);
    let fields = |change: fn(&mut Update)| {
        let mut said = said("a");
        change(&mut said);
        from_a(&encoded(ALL, &said, &BASE, &[2.0; 4]))
    };
    let long = encoded(ALL, &said("a"), &[0.0; 5], &[2.0; 5]);
    let plain = Update { update: singles(&[2.0; 4]), ..said("a") }.write();
    let mut bomb = encoding::Deflate::new(vec![], 1 << 26).unwrap();
    std::io::Write::write_all(&mut bomb, &vec![0; 1 << 26]).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 1 << 19, "64 MiB in {} bytes", bomb.len());
    let mut lying = honest.to_vec();
    *lying.last_mut().unwrap() ^= 1;
    let text = json!({
        "round_id": "r", "proplet_id": "a", "base_model_uri": ModelUri::global(ModelVersion(0)),
        "num_samples": 10, "metrics": {}, "update": {"w": [1.0, 2.0, 3.0, 4.0]},
    });
    for (what, envelope, reason) in [
        ("a bomb", from_a(&bomb), Rejection::TooLarge),
        ("cut", from_a(&honest[..honest.len() / 2]), Rejection::Malformed),
        ("two bytes", from_a(&honest[..2]), Rejection::Malformed),
        ("a wrong sum", from_a(&lying), Rejection::Malformed),
        ("more behind it", from_a(&[&honest[..], b"x"].concat()), Rejection::Malformed),
        ("another encoding", file("deflate", "a", &[2.0; 4]), Rejection::Malformed),
        ("not compressed", file("delta+topk:0.5+int8", "a", &[2.0; 4]), Rejection::Malformed),
        ("plain", from_a(&plain), Rejection::Malformed),
        ("text", sent(&text), Rejection::Malformed),
        ("another shape", from_a(&long), Rejection::Shape),
        ("no samples", fields(|it| it.num_samples = 0), Rejection::NumSamples),
        ("too many", fields(|it| it.num_samples = u64::MAX), Rejection::NumSamples),
        (
            "another base",
            fields(|it| it.base_model_uri = ModelUri::global(ModelVersion(7))),
            Rejection::StaleBase,
        ),
        ("another's", fields(|it| it.proplet_id = id("b")), Rejection::SenderMismatch),
        ("another round's", fields(|it| it.round_id = id("q")), Rejection::SenderMismatch),
        ("a stranger's", file(ALL, "c", &[2.0; 4]), Rejection::Stranger),
    ] {
        let out = story.hears(envelope);
        assert_eq!(verdict(&out), rejected(reason), "{what}: {:?}", notes(&out));
    }
    assert_eq!(verdict(&story.hears(from_a(&honest))), ACCEPTED);

    let mut plain_round = Story::new(round::Rules::default());
    plain_round.hears(start("r", &["a", "b"], 2).seal());
    plain_round.hears(base_of(0, &BASE));
    for envelope in [from_a(&honest), file("int8", "a", &[2.0; 4])] {
        let out = plain_round.hears(envelope);
        assert_eq!(verdict(&out), rejected(Rejection::Malformed), "not asked for");
    }
}

#[test]
fn a_sum_that_leaves_its_type_is_not_finite() {
    let mut story = Story::new(round::Rules::default());
    story.hears(asking("delta").seal());
    story.hears(base_of(0, &[f32::MAX; 4]));
    let payload = encoded("delta", &said("a"), &[0.0; 4], &[f32::MAX; 4]);
    let out = story.hears(forwarded("r", "a", &payload));
    assert_eq!(verdict(&out), rejected(Rejection::NotFinite), "{:?}", notes(&out));
}

#[test]
fn a_start_whose_encoding_is_none_or_does_not_serve_its_model_is_bad() {
    let mut story = Story::new(round::Rules::default());
    for (text, what) in [
        ("", "at least one stage"),
        ("zip", "there is no stage"),
        ("topk:2+int8", "takes"),
        ("topk:0.1", "needs delta"),
        ("deflate+int8", "before"),
    ] {
        let out = story.hears(asking(text).seal());
        let failed = letter(&out, &failed());
        assert_eq!(failed["reason"], "bad_start");
        assert!(failed["error"].as_str().unwrap().contains(what), "{failed}");
    }
    // Of a model that has not been seen, it is known only when it is.
    let named =
        [".scale", "w"].map(|name| (name.to_owned(), Tensor::from_f32(vec![1], &[1.0]).unwrap()));
    let tensors: Tensors = named.into_iter().collect();
    let model = Model { version: ModelVersion(0), tensors, form: Form::Safetensors };
    let topic = Topic::Model { uri: ModelUri::global(ModelVersion(0)) };
    story.hears(asking("int8").seal());
    let out = story.hears(Envelope { topic, payload: model.write() });
    assert_eq!(letter(&out, &failed())["reason"], "bad_start");
    let again = RoundStart { round_id: id("r-2"), ..asking("int8") };
    let out = story.hears(again.seal());
    let topic = Topic::RoundFailed { round: id("r-2") };
    assert_eq!(letter(&out, &topic)["reason"], "bad_start");
}

#[test]
fn nobody_has_to_wait_for_the_numbers_of_a_model_that_are_not_needed() {
    let mut story = Story::new(round::Rules::default());
    story.hears(asking("f16").seal());
    assert_eq!(verdict(&story.hears(file("f16", "a", &[0.5; 4]))), None, "its shape is not known");
    story.hears(base_of(0, &BASE));
    assert_eq!(verdict(&story.hears(file("f16", "a", &[0.5; 4]))), ACCEPTED);
    assert!(!story.disk.tables().contains(&"base"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn the_numbers_of_a_model_in_pieces_are_fetched_and_given_back_with_the_round() {
    use protocol::{
        Input, Manifest, Output,
        manifest::Format,
        message::{ModelBlob, UpdateOffer},
    };
    use round::{Effect, Kept, Report, StoredBlob, Undecoded};
    use transfer::Bitmap;

    let uri = ModelUri::global(ModelVersion(0));
    let head = Topic::ModelChunk { uri: uri.clone(), index: 0 };
    let base = protocol::tensor::safetensors::write(&singles(&BASE), &[].into());
    let blob = Manifest::of(&base, 1024, Format::safetensors()).unwrap();
    let sha256 = blob.sha256();
    let mut story = Story::new(round::Rules::default());
    story.hears(asking("delta").seal());
    let shown = serde_json::to_vec(&ModelBlob { version: ModelVersion(0), blob: blob.clone() });
    let topic = Topic::Model { uri };
    story.hears(Envelope { topic, payload: shown.unwrap().into() });
    let piece = || Envelope { topic: head.clone(), payload: base.clone() };
    let out = story.hears(piece());
    assert!(out.contains(&Output::Effect(Effect::Begin(blob.clone()))), "{out:?}");
    let empty = |blob: &Manifest| Ok(Bitmap::empty(blob.count()));
    let tell = |story: &mut Story, report| story.tell(Input::Report(report));
    let out = tell(&mut story, Report::Begun { sha256, have: empty(&blob) });
    assert!(out.contains(&Output::Listen(protocol::Filter::Exactly(head.clone()))), "{out:?}");
    story.hears(piece());
    let out = tell(&mut story, Report::Stored { sha256, index: 0, result: Ok(()) });
    assert!(out.iter().any(|it| matches!(it, Output::Effect(Effect::Finish { .. }))), "{out:?}");
    let out = tell(&mut story, Report::Received { sha256, result: Ok(()) });
    assert!(out.contains(&Output::Effect(Effect::Pin(sha256))), "{out:?}");

    let coded = Bytes::from_static(b"whatever comes");
    let coming = Manifest::of(&coded, 1024, Format::safetensors()).unwrap();
    let offer = |proplet: &str| {
        let Update { round_id, proplet_id, base_model_uri, num_samples, metrics, .. } =
            said(proplet);
        let blob = coming.clone();
        let offer =
            UpdateOffer { round_id, proplet_id, base_model_uri, num_samples, metrics, blob };
        forwarded("r", proplet, &serde_json::to_vec(&offer).unwrap())
    };
    let arrives = |story: &mut Story| {
        story.hears(offer("a"));
        let sha256 = coming.sha256();
        tell(story, Report::Begun { sha256, have: empty(&coming) });
        let topic = Topic::UpdateChunk { round: id("r"), proplet: id("a"), index: 0 };
        story.hears(Envelope { topic, payload: coded.clone() });
        let out = tell(story, Report::Stored { sha256, index: 0, result: Ok(()) });
        let needs = out.iter().find_map(|it| match it {
            Output::Effect(Effect::Decode { base_values, .. }) => base_values.clone(),
            _ => None,
        });
        let kept = Kept::Stored(StoredBlob { sha256: blob.sha256(), bytes: blob.bytes() });
        assert_eq!(needs, Some(kept), "{out:?}");
    };
    arrives(&mut story);
    let sha256 = coming.sha256();
    let trouble = Err(Undecoded::Failed("the disk is full".to_owned()));
    let out = tell(&mut story, Report::Decoded { sha256, result: trouble });
    assert_eq!(verdict(&out), None, "it is not the update's fault: {out:?}");
    arrives(&mut story);
    let made = StoredBlob { sha256: Digest::of(b"decoded"), bytes: 100 };
    let out = tell(&mut story, Report::Decoded { sha256, result: Ok(made) });
    assert_eq!(verdict(&out), ACCEPTED, "{out:?}");

    let out = story.restarts();
    let held = out.iter().find_map(|it| match it {
        Output::Effect(Effect::Hold(held)) => Some(held.clone()),
        _ => None,
    });
    assert_eq!(held.unwrap().len(), 2, "the update and the base model");
    let out = story.passes(std::time::Duration::from_secs(60));
    assert!(job(&out).base_values.is_some());
    assert_eq!(job(&out).members[0].values, Kept::Stored(made));
}
