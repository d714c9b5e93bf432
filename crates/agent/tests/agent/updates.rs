//! Stories of federated tasks: an update is kept, and said until its verdict is heard.

use std::time::Duration;

use agent::{GuestOutput, Outcome, Report};
use bytes::Bytes;
use protocol::{
    DType, Form, Input, ModelVersion, Rejection, Tensor, Tensors,
    message::{TaskResults, Update, UpdateAck, Verdict},
    tensor::safetensors,
};
use serde_json::json;

use crate::device::{Device, federated, me, numbers, round_id, update, uri};

fn trained(round: &str) -> Device {
    let mut device = Device::connected(|_| {});
    device.hear(&federated("t-1", 0, round, 0));
    device.hear_model(0);
    device.print("t-1", 0, &update(round, 0));
    device
}

#[test]
fn an_update_goes_to_its_round_with_the_guests_own_numbers() {
    let mut device = trained("r-1");
    let results = device.take_result();
    assert_eq!(results.error, None);
    assert_eq!(results.results["update"], json!("published"));
    assert_eq!(results.results["round_id"], json!("r-1"));
    assert!(results.results.get("w").is_none(), "the weights are not in the result");
    let said = device.take_updates("r-1");
    assert_eq!(said.len(), 1);
    let read = numbers(&said[0]);
    assert_eq!(read.proplet_id, me(), "filled in");
    let w = read.update.get("w").expect("w").to_f64();
    assert_eq!(w, [0.1, -0.300_000_000_000_000_04, 1e-300]);
    assert_eq!(read.update.get("b").expect("b").to_f64(), [5e-324]);
    assert_eq!(read.metrics["loss"], 0.73);
}

#[test]
fn until_a_verdict_is_heard_it_is_said_again_more_and_more_rarely() {
    let mut device = trained("r-1");
    let first = device.take_updates("r-1");
    device.wait(Duration::from_secs(130));
    let again = device.take_updates("r-1");
    // After 1, 2, 4, 8, 16, 32, 60 s, each give or take a fifth.
    assert!((6..=7).contains(&again.len()), "{} times", again.len());
    assert!(again.iter().all(|update| *update == first[0]));
    device.accept("r-1");
    assert_eq!(device.kept("updates"), 0);
    device.wait(Duration::from_secs(300));
    assert_eq!(device.take_updates("r-1").len(), 0);
}

#[test]
fn a_rejected_update_is_not_said_again_and_the_tasks_result_stays() {
    let mut device = trained("r-1");
    let result = device.take_result();
    device.reject("r-1", Rejection::RoundClosed);
    device.reject("r-1", Rejection::RoundClosed);
    device.take_updates("r-1");
    device.wait(Duration::from_secs(300));
    assert_eq!(device.take_updates("r-1").len(), 0);
    device.hear(&federated("t-1", 0, "r-1", 0));
    assert_eq!(device.take_result(), result);
    assert_eq!(device.take_updates("r-1").len(), 0, "its verdict is known");
}

#[test]
fn a_verdict_on_another_update_changes_nothing() {
    let mut device = trained("r-1");
    device.accept("r-2");
    let proplet_id = "proplet-2".parse().expect("an id");
    let round_id = round_id("r-1");
    device.hear(&UpdateAck { round_id, proplet_id, verdict: Verdict::Accepted });
    device.said.clear();
    device.wait(Duration::from_secs(2));
    assert_eq!(device.take_updates("r-1").len(), 1);
}

#[test]
fn at_a_reconnect_it_is_said_at_once() {
    let mut device = trained("r-1");
    device.wait(Duration::from_secs(200));
    device.step(Input::Report(Report::Lost { connection: 1 }));
    device.said.clear();
    device.wait(Duration::from_secs(600));
    assert_eq!(device.take_updates("r-1").len(), 0, "nobody there to hear it");
    device.connect();
    assert_eq!(device.take_updates("r-1").len(), 1);
    device.wait(Duration::from_secs(2));
    assert_eq!(device.take_updates("r-1").len(), 1, "and soon again, from the beginning");
}

#[test]
fn what_was_trained_while_the_broker_was_away_is_said_when_it_comes_back() {
    let mut device = Device::connected(|_| {});
    device.hear(&federated("t-1", 0, "r-1", 0));
    device.hear_model(0);
    device.step(Input::Report(Report::Lost { connection: 1 }));
    device.print("t-1", 0, &update("r-1", 0));
    assert_eq!(device.take_updates("r-1").len(), 0);
    device.connect();
    assert_eq!(device.take_updates("r-1").len(), 1);
}

#[test]
fn a_repeated_start_brings_the_result_and_the_update_again() {
    let mut device = trained("r-1");
    let result = device.take_result();
    device.take_updates("r-1");
    device.hear(&federated("t-1", 0, "r-1", 0));
    assert_eq!(device.take_result(), result);
    assert_eq!(device.take_updates("r-1").len(), 1);
}

#[test]
fn while_one_update_waits_a_second_one_does_not_take_its_place() {
    let mut device = trained("r-1");
    let first = device.take_updates("r-1").remove(0);
    device.take_result();
    device.hear(&federated("t-1", 1, "r-1", 0));
    device.print("t-1", 1, &update("r-1", 0).replace("0.1", "0.7"));
    assert_eq!(device.take_result().results["update"], json!("duplicate"));
    device.wait(Duration::from_secs(4));
    assert_eq!(device.take_updates("r-1").last(), Some(&first));
}

#[test]
fn output_that_is_not_the_update_asked_for_is_a_failed_task() {
    let good = update("r-1", 0);
    for (printed, expected) in [
        (String::new(), "nothing was printed"),
        ("loss is 0.3".to_owned(), "not JSON"),
        (format!("training...\n{good}"), "not JSON"),
        (format!("{good}{good}"), "trailing"),
        ("[1, 2]".to_owned(), "malformed"),
        (good.replace("0.1,", "NaN,"), "not_finite"),
        (good.replace("0.1,", "1e999,"), "not_finite"),
        (good.replace("\"num_samples\":7", "\"num_samples\":0"), "num_samples is 0"),
        (update("r-2", 0), "it names round r-2, the task's is r-1"),
        (update("r-1", 3), "it is based on "),
        (good.replacen('{', "{\"proplet_id\":\"proplet-2\",", 1), "proplet-2"),
    ] {
        let mut device = Device::connected(|_| {});
        device.hear(&federated("t-1", 0, "r-1", 0));
        device.hear_model(0);
        device.print("t-1", 0, &printed);
        let results = device.take_result();
        let error = results.error.expect("an error");
        assert!(error.starts_with("output is not a valid update: "), "{error}");
        assert!(error.contains(expected), "{error} / {expected}");
        assert_eq!(results.code.expect("a code").0, "not_an_update");
        assert_eq!((device.take_updates("r-1").len(), device.kept("updates")), (0, 0));
    }
}

/// The end of a guest that has written this file.
fn wrote(device: &mut Device, fields: &[(&str, &str)]) -> TaskResults {
    let w = Tensor::from_f32(vec![2], &[0.1, f32::from_bits(1)]).expect("two numbers");
    let tensors: Tensors = [("w".to_owned(), w)].into_iter().collect();
    let field = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let file = safetensors::write(&tensors, &fields.iter().map(field).collect());
    device.hear(&federated("t-1", 0, "r-1", 0));
    device.hear_model(0);
    let stdout = Bytes::from_static(b"chatter");
    let output = GuestOutput { stdout, update_file: Some(file), state: None };
    device.finish("t-1", 0, Outcome::Ok(output));
    device.take_result()
}

#[test]
fn a_file_is_an_update_and_need_not_say_what_its_task_said() {
    let mut device = Device::connected(|_| {});
    let results = wrote(&mut device, &[("num_samples", "7"), ("metrics", r#"{"loss":0.5}"#)]);
    assert_eq!(results.error, None);
    assert_eq!(results.results["num_samples"], json!(7));
    let said = device.take_payloads("r-1");
    let update = Update::read(&said[0], None).expect("an update");
    assert_eq!((update.form, &update.proplet_id), (Form::Safetensors, &me()));
    assert_eq!((update.round_id.as_str(), update.base_model_uri.version), ("r-1", ModelVersion(0)));
    assert_eq!(update.metrics["loss"], 0.5);
    let w = update.update.get("w").expect("w");
    assert_eq!((w.dtype(), w.to_f32()), (DType::F32, vec![0.1, f32::from_bits(1)]));
}

#[test]
fn a_file_that_is_no_update_to_what_was_asked_is_a_failed_task() {
    for (field, value, expected) in [
        ("num_samples", "0", "num_samples is 0"),
        ("num_samples", "many", "whole number"),
        ("round_id", "r-2", "it names round r-2"),
        ("proplet_id", "somebody", "the payload names somebody"),
        ("base_model_uri", &uri(3), "global_model_v3"),
        ("encoding", "delta", "was not asked for"),
    ] {
        let mut device = Device::connected(|_| {});
        let results = wrote(&mut device, &[("num_samples", "7"), (field, value)]);
        let error = results.error.expect("an error");
        assert!(error.contains(expected), "{error} / {expected}");
        assert_eq!(device.kept("updates"), 0);
    }
    for (file, expected) in [
        (&b"\x10\0\0\0\0\0\0\0{}"[..], "claims 16 bytes"),
        (b"{\"update\":{}}", "claims"),
        (b"", "too few"),
    ] {
        let mut device = Device::connected(|_| {});
        device.hear(&federated("t-1", 0, "r-1", 0));
        device.hear_model(0);
        let update_file = Some(Bytes::from_static(file));
        device.finish(
            "t-1",
            0,
            Outcome::Ok(GuestOutput { stdout: Bytes::new(), update_file, state: None }),
        );
        let error = device.take_result().error.expect("an error");
        assert!(error.contains(expected), "{error} / {expected}");
    }
}

#[test]
fn updates_that_nobody_judges_fill_the_device_and_it_says_so() {
    let mut device = Device::connected(|config| config.updates_bytes_max = 500);
    for round in ["r-1", "r-2", "r-3"] {
        device.hear(&federated(round, 0, round, 0));
        device.hear_model(0);
        device.print(round, 0, &update(round, 0));
    }
    let results = device.take_results();
    assert_eq!(results[0].error, None);
    let refused = results[2].error.as_ref().expect("an error");
    assert!(refused.contains("still wait for a verdict"), "{refused}");
    device.accept("r-1");
    device.accept("r-2");
    device.hear(&federated("r-3", 1, "r-3", 0));
    device.print("r-3", 1, &update("r-3", 0));
    assert_eq!(device.take_result().error, None);
}
