//! Rounds on models that have types, told as stories: updates in either form, and a new model in the
//! form of its base.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "these are tests")]

#[allow(
    unreachable_pub,
    clippy::wildcard_enum_match_arm,
    reason = "a module of tests, shared with others"
)]
mod story;

use bytes::Bytes;
use protocol::{
    DType, Digest, Envelope, Form, Letter as _, ModelUri, ModelVersion, Rejection, Slot, Tensor,
    Tensors, Topic,
    message::{Model, Update},
};
use serde_json::json;
use story::*;

/// What a base model is made of: `b` of F64 and `w` of F32.
fn mixed(w: &[f64], b: f64) -> Tensors {
    let typed = |dtype, shape, values: &[f64]| Tensor::rounded(Slot { dtype, shape }, values);
    [("b", typed(DType::F64, vec![], &[b])), ("w", typed(DType::F32, vec![w.len()], w))]
        .map(|(name, tensor)| (name.to_owned(), tensor.unwrap()))
        .into_iter()
        .collect()
}

fn binary_base(tensors: Tensors) -> Envelope {
    let model = Model { version: ModelVersion(0), tensors, form: Form::Safetensors };
    let topic = Topic::Model { uri: ModelUri::global(ModelVersion(0)) };
    Envelope { topic, payload: model.write() }
}

/// Round `r` open for `a` and `b`, on a file.
fn opened_on(tensors: Tensors) -> Story {
    let mut story = Story::new(round::Rules::default());
    story.hears(start("r", &["a", "b"], 2).seal());
    story.hears(binary_base(tensors));
    story
}

fn typed_update(proplet: &str, update: Tensors) -> Update {
    Update {
        round_id: id("r"),
        proplet_id: id(proplet),
        base_model_uri: ModelUri::global(ModelVersion(0)),
        num_samples: 10,
        metrics: [("loss".to_owned(), 0.5)].into(),
        update,
        form: Form::Safetensors,
    }
}

fn file(proplet: &str, update: Tensors) -> Envelope {
    forwarded("r", proplet, &typed_update(proplet, update).write())
}

fn text(proplet: &str, update: &serde_json::Value) -> Envelope {
    let base = ModelUri::global(ModelVersion(0)).to_string();
    sent(&json!({
        "round_id": "r", "proplet_id": proplet, "base_model_uri": base,
        "num_samples": 10, "metrics": {}, "update": update,
    }))
}

/// The model that a round makes of its two updates, averaged as it ships.
fn made(story: &mut Story, closed: &Outputs) -> (Bytes, Model) {
    let report = round::average(&job(closed), &aggregate::Work::default());
    let out = story.tell(protocol::Input::Report(report));
    let payload = models(&out).remove(0);
    let model = Model::read(&payload).unwrap();
    (payload, model)
}

#[test]
fn a_model_that_is_a_file_makes_one_that_is_a_file_of_the_same_types() {
    let mut story = opened_on(mixed(&[0.0; 3], 0.0));
    let out = story.hears(file("a", mixed(&[0.1, 2.0, -1.0], 0.5)));
    assert_eq!(verdict(&out), ACCEPTED);
    let again = story.hears(file("a", mixed(&[0.1, 2.0, -1.0], 0.5)));
    assert_eq!(verdict(&again), ACCEPTED, "a repetition is answered again");
    let other = story.hears(file("a", mixed(&[0.1, 2.0, -1.5], 0.5)));
    assert_eq!(verdict(&other), rejected(Rejection::Duplicate));
    let closed = story.hears(text("b", &json!({"b": 0.25, "w": [0.3, 4.0, 1e-45]})));
    assert_eq!(verdict(&closed), ACCEPTED, "text is rounded to the types of the model");

    let (payload, model) = made(&mut story, &closed);
    assert_eq!((model.version, model.form), (ModelVersion(1), Form::Safetensors));
    assert_eq!(model.tensors.schema(), mixed(&[0.0; 3], 0.0).schema());
    let mean = |a: f32, b: f32| ((f64::from(a) + f64::from(b)) / 2.0) as f32;
    let tiny = mean(-1.0, f32::from_bits(1));
    assert_eq!(model.tensors.get("w").unwrap().to_f32(), [mean(0.1, 0.3), 3.0, tiny]);
    assert_eq!(model.tensors.get("b").unwrap().to_f64(), [0.375]);

    let done = story.hears(latest(1, Digest::of(&payload)));
    assert_eq!(letter(&done, &complete())["num_updates"], 2);
    let next = protocol::message::RoundStart {
        model_uri: ModelUri::global(ModelVersion(1)),
        ..start("r-2", &["a"], 1)
    };
    let out = story.hears(next.seal());
    assert_eq!(letter(&out, &Topic::RoundOpened { round: id("r-2") })["k_of_n"], 1);
}

#[test]
fn a_crash_forgets_neither_types_nor_form() {
    let mut story = opened_on(mixed(&[0.0; 2], 0.0));
    story.hears(file("a", mixed(&[0.1, 1.0], 0.5)));
    story.restarts();
    story.hears(latest(0, Digest::of(b"model 0")));
    let closed = story.hears(file("b", mixed(&[0.1, 1.0], 0.5)));
    let again = story.restarts();
    assert_eq!(jobs(&again), jobs(&closed), "the frozen set is the same");
    story.hears(latest(0, Digest::of(b"model 0")));
    let (payload, model) = made(&mut story, &closed);
    assert_eq!(model.tensors, mixed(&[0.1, 1.0], 0.5), "equal updates give themselves");
    let out = story.restarts();
    assert_eq!(models(&out), [payload]);
    assert_eq!(model.form, Form::Safetensors);
}

#[test]
fn a_file_that_does_not_fit_is_refused_by_its_reason_and_the_round_goes_on() {
    let mut story = opened_on(mixed(&[0.0; 3], 0.0));
    let plain = |values: &[f64]| {
        let wide = Tensor::new(vec![values.len()], values.to_vec()).unwrap();
        let tensors = [("w".to_owned(), wide), ("b".to_owned(), Tensor::scalar(0.0))];
        tensors.into_iter().collect::<Tensors>()
    };
    let fields = |change: fn(&mut Update)| {
        let mut update = typed_update("a", mixed(&[1.0; 3], 0.0));
        change(&mut update);
        forwarded("r", "a", &update.write())
    };
    let honest = typed_update("a", mixed(&[1.0; 3], 0.0)).write();
    let cut = |len: usize| forwarded("r", "a", &honest[..len]);
    let limit = round::Rules::default().samples_max;
    assert!(limit < u64::MAX);
    for (envelope, reason) in [
        (file("a", mixed(&[1.0; 2], 0.0)), Rejection::Shape),
        (file("a", mixed(&[1.0; 4], 0.0)), Rejection::Shape),
        (file("a", plain(&[1.0; 3])), Rejection::Shape),
        (file("a", Tensors::default()), Rejection::Shape),
        (file("a", mixed(&[1.0, f64::NAN, 1.0], 0.0)), Rejection::NotFinite),
        (file("a", mixed(&[1.0, 1e39, 1.0], 0.0)), Rejection::NotFinite),
        (file("a", mixed(&[1.0; 3], f64::INFINITY)), Rejection::NotFinite),
        (text("a", &json!({"b": 0.0, "w": [1.0, 1e39, 1.0]})), Rejection::NotFinite),
        (text("a", &json!({"b": 0.0, "w": [1.0, 1.0]})), Rejection::Shape),
        (fields(|update| update.num_samples = 0), Rejection::NumSamples),
        (fields(|update| update.num_samples = u64::MAX), Rejection::NumSamples),
        (
            fields(|update| update.base_model_uri = ModelUri::global(ModelVersion(9))),
            Rejection::StaleBase,
        ),
        (fields(|update| update.proplet_id = id("b")), Rejection::SenderMismatch),
        (fields(|update| update.round_id = id("other")), Rejection::SenderMismatch),
        (file("c", mixed(&[1.0; 3], 0.0)), Rejection::Stranger),
        (cut(honest.len() - 1), Rejection::Malformed),
        (cut(40), Rejection::Malformed),
        (cut(8), Rejection::Malformed),
        (
            forwarded("r", "a", &[&100_000_000_u64.to_le_bytes()[..], &honest].concat()),
            Rejection::Malformed,
        ),
        (forwarded("r", "a", &[&honest[..], b"x"].concat()), Rejection::Malformed),
    ] {
        let out = story.hears(envelope);
        assert_eq!(verdict(&out), rejected(reason), "{:?}", notes(&out));
    }
    let what = notes(&story.hears(file("a", plain(&[1.0; 3]))));
    assert!(format!("{what:?}").contains("is of F64, not F32"), "{what:?}");

    story.hears(file("a", mixed(&[1.0; 3], 0.0)));
    let closed = story.hears(file("b", mixed(&[1.0; 3], 0.0)));
    let (_, model) = made(&mut story, &closed);
    assert_eq!(model.tensors, mixed(&[1.0; 3], 0.0), "nothing of it was averaged");
}

#[test]
fn a_file_longer_than_is_taken_is_answered_without_being_read() {
    let rules = round::Rules { update_len_max: 500, ..round::Rules::default() };
    let mut story = Story::new(rules);
    story.hears(start("r", &["a", "b"], 2).seal());
    story.hears(binary_base(mixed(&[0.0; 2000], 0.0)));
    let out = story.hears(file("a", mixed(&[1.0; 2000], 0.0)));
    assert_eq!(verdict(&out), rejected(Rejection::TooLarge));
}

#[test]
fn whole_numbers_are_averaged_by_what_they_stand_for() {
    let quantised = |wholes: &[i8], scale: f32| -> Tensors {
        let slot = Slot { dtype: DType::I8, shape: vec![wholes.len()] };
        let data = wholes.iter().map(|whole| whole.cast_unsigned()).collect();
        let scale = Tensor::from_f32(vec![], &[scale]).unwrap();
        [("w".to_owned(), Tensor::typed(slot, data).unwrap()), ("w.scale".to_owned(), scale)]
            .into_iter()
            .collect()
    };
    let mut story = opened_on(quantised(&[0, 0], 1.0));
    story.hears(file("a", quantised(&[127, 0], 1.0)));
    let closed = story.hears(file("b", quantised(&[127, -127], 2.0)));
    let (_, model) = made(&mut story, &closed);
    assert_eq!(model.tensors, quantised(&[127, -85], 1.5));
}
