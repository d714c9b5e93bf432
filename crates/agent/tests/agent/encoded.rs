//! Stories of rounds that ask for an encoding: what is said, and what becomes of what was left out.

use agent::{
    BaseModel, Effect, Encode, Encoded, EncodedPayload, Failure, Report, Residual, ResidualValues,
};
use protocol::{
    Digest, Input, Manifest, Rejection,
    manifest::Format,
    message::{FailureCode, is_blob_form},
};

use crate::device::{Device, federated, model, task_id, uri};

const CODE: &str = "delta+topk:0.25+f16";

fn asked(task: &str, round: &str, encoding: &str) -> protocol::message::TaskStart {
    let mut start = federated(task, 0, round, 0);
    start.env.insert("ENCODING".to_owned(), encoding.to_owned());
    start
}

fn said(round: &str) -> String {
    let base = uri(0);
    format!(
        "{{\"round_id\":\"{round}\",\"base_model_uri\":\"{base}\",\"num_samples\":7,\
         \"metrics\":{{}},\"update\":{{\"w\":[1.0,2.0,4.0],\"b\":0.5}}}}"
    )
}

/// Trains for a round, up to the point at which the shell is asked to encode.
fn trained(device: &mut Device, task: &str, round: &str) -> Encode {
    device.hear(&asked(task, round, CODE));
    if device.runs.is_empty() {
        device.hear_model(0);
    }
    device.print(task, 0, &said(round));
    take_encode(device)
}

#[track_caller]
fn take_encode(device: &mut Device) -> Encode {
    let found = device.effects.iter().position(|it| matches!(it, Effect::Encode(_)));
    let Effect::Encode(encode) = device.effects.remove(found.expect("asks for it")) else {
        panic!("it was one when it was found")
    };
    *encode
}

fn report(device: &mut Device, encode: &Encode, result: Result<Encoded, Failure>) {
    let (task, attempt) = (encode.task.clone(), encode.attempt);
    device.step(Input::Report(Report::Encoded { task, attempt, result }));
}

/// As the shell does it where all is in memory.
fn encode(device: &mut Device, encode: &Encode) -> Residual {
    let (file, residual) = encode.here().expect("it can be encoded");
    let payload = EncodedPayload::Here(file);
    report(device, encode, Ok(Encoded { payload, residual: residual.clone() }));
    residual.expect("top-k leaves something out")
}

#[test]
fn an_update_is_said_encoded_with_its_address() {
    let mut device = Device::connected(|_| {});
    let asked = trained(&mut device, "t-1", "r-1");
    assert_eq!(asked.base, Some(BaseModel::Here(model(0))));
    assert_eq!(asked.residual, None, "there was none before");
    encode(&mut device, &asked);
    let result = device.take_result();
    assert_eq!((result.error, &result.results["encoding"]), (None, &CODE.into()));
    let payload = device.take_payloads("r-1").remove(0);
    assert_eq!(protocol::message::read_update_encoding(&payload).as_deref(), Some(CODE));
    let (round, proplet) = protocol::message::read_update_address(&payload);
    assert_eq!((round.unwrap().as_str(), proplet.unwrap().as_str()), ("r-1", "proplet-1"));
    device.accept("r-1");
    assert_eq!(device.kept("updates"), 0);
}

#[test]
fn what_was_left_out_counts_only_once_the_update_did_also_over_a_crash() {
    let mut device = Device::connected(|_| {});
    let first = trained(&mut device, "t-1", "r-1");
    let rest = encode(&mut device, &first);
    assert_eq!(trained(&mut device, "t-2", "r-2").residual, None, "no verdict yet");
    device.crash();
    device.connect();
    device.accept("r-1");
    device.crash();
    device.connect();
    device.hear(&asked("t-3", "r-3", CODE));
    device.hear_model(0);
    device.print("t-3", 0, &said("r-3"));
    let third = take_encode(&mut device);
    assert_eq!(third.residual, Some(rest.clone()), "kept durably");
    let more = encode(&mut device, &third);
    assert_ne!(more, rest);
    device.reject("r-3", Rejection::RoundClosed);
    let fourth = trained(&mut device, "t-4", "r-4");
    assert_eq!(fourth.residual, Some(rest), "a refused update left nothing out");
    let last = encode(&mut device, &fourth);
    assert_eq!(last, more, "the same update leaves the same out");
    device.accept("r-4");
    assert_eq!((device.kept("residuals"), device.kept("residual_values")), (1, 1));
}

#[test]
fn only_a_few_residuals_are_kept() {
    let mut device = Device::connected(|_| {});
    for number in 1..=7 {
        let (task, round) = (format!("t-{number}"), format!("r-{number}"));
        device.hear(&asked(&task, &round, &format!("delta+topk:0.{number}+f16")));
        if device.runs.is_empty() {
            device.hear_model(0);
        }
        device.print(&task, 0, &said(&round));
        let asked = take_encode(&mut device);
        encode(&mut device, &asked);
        device.accept(&round);
    }
    assert_eq!((device.kept("residuals"), device.kept("residual_values")), (4, 4));
}

#[test]
fn an_encoding_that_is_not_known_fails_the_task_with_the_reason() {
    let mut device = Device::connected(|_| {});
    device.hear(&asked("t-1", "r-1", "shrink"));
    let result = device.take_result();
    let error = result.error.expect("it failed");
    assert!(error.contains("ENCODING") && error.contains("shrink"), "{error}");
    assert!(device.runs.is_empty());
}

#[test]
fn what_cannot_be_encoded_fails_the_task() {
    let mut device = Device::connected(|_| {});
    let asked = trained(&mut device, "t-1", "r-1");
    let failure = Failure { code: FailureCode("encoding".to_owned()), message: "no".to_owned() };
    report(&mut device, &asked, Err(failure));
    assert_eq!(device.take_result().error.as_deref(), Some("no"));
    assert_eq!(device.agent.slots_taken(), 0);
}

#[test]
fn blobs_are_given_back_when_nobody_needs_them() {
    let mut device = Device::connected(|_| {});
    let asked = trained(&mut device, "t-1", "r-1");
    let file = Manifest::of(&[1; 4000], 1024, Format::safetensors()).expect("a manifest");
    let left = Digest::of(b"left out");
    let stored = || Encoded {
        payload: EncodedPayload::Stored(file.clone()),
        residual: Some(Residual {
            schema: Digest::of(b"schema"),
            values: ResidualValues::Stored(left),
        }),
    };
    let pin = |device: &mut Device| [file.sha256(), left].map(|blob| device.pin(blob));
    pin(&mut device);
    report(&mut device, &asked, Ok(stored()));
    assert!(is_blob_form(&device.take_payloads("r-1")[0]), "it is offered");
    device.crash();
    device.connect();
    assert_eq!([file.sha256(), left].map(|blob| device.pins(blob)), [1, 1], "both are held");
    device.accept("r-1");
    assert_eq!([file.sha256(), left].map(|blob| device.pins(blob)), [0, 1], "one stays");

    // A report that comes too late.
    device.hear(&self::asked("t-2", "r-2", CODE));
    device.hear_model(0);
    device.print("t-2", 0, &said("r-2"));
    let asked = take_encode(&mut device);
    assert_eq!(asked.task, task_id("t-2"));
    device.hear(&crate::device::stop("t-2"));
    pin(&mut device);
    report(&mut device, &asked, Ok(stored()));
    assert_eq!([file.sha256(), left].map(|blob| device.pins(blob)), [0, 1]);
    assert_eq!(device.agent.slots_taken(), 0);
}
