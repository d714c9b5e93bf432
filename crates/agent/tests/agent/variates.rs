//! Stories of rounds with control variates: what a guest is given, and when what it leaves is taken
//! over.

use std::time::Duration;

use agent::{GuestOutput, Outcome, PackedUpdate, Report};
use bytes::Bytes;
use protocol::{
    Envelope, Filter, Input, Manifest, ModelVersion, Rejection, Tensor, Topic,
    manifest::Format,
    message::{RoundVariate, TaskStart},
    tensor::safetensors::Metadata,
};
use transfer::Bitmap;

use crate::device::{Device, federated, round_id, task_id, update, uri};

fn asked(task: &str, round: &str) -> TaskStart {
    let mut start = federated(task, 0, round, 0);
    start.env.insert("STRATEGY".to_owned(), "scaffold".to_owned());
    start
}

fn variate(round: &str, series: &str) -> Envelope {
    let tensors = [("w".to_owned(), Tensor::new(vec![3], vec![0.5; 3]).expect("three"))];
    let variate = RoundVariate {
        round_id: round_id(round),
        series: round_id(series),
        version: ModelVersion(0),
        tensors: tensors.into_iter().collect(),
        form: protocol::Form::Json,
    };
    protocol::Letter::seal(&variate)
}

/// A task up to the point at which its guest runs; the state that this one is given.
fn begins(device: &mut Device, task: &str, round: &str, series: &str) -> Option<Bytes> {
    device.hear(&asked(task, round));
    let model = Filter::Exactly(Topic::Model { uri: uri(0).parse().expect("an address") });
    if device.listening.contains(&model) {
        device.hear_model(0);
    }
    assert!(device.runs.is_empty(), "it waits for the control variate");
    device.hear_envelope(variate(round, series));
    assert!(device.runs.contains_key(&(task_id(task), 0)));
    let given = device.variates.clone().expect("it is a round with control variates");
    assert_eq!(given.control, variate(round, series).payload);
    given.state
}

fn leaves(device: &mut Device, task: &str, round: &str, state: &'static [u8]) {
    let stdout = Bytes::from(update(round, 0));
    let state = Some(Bytes::from_static(state));
    device.finish(task, 0, Outcome::Ok(GuestOutput { stdout, update_file: None, state }));
}

#[test]
fn a_state_is_taken_over_only_when_its_update_counts_also_over_crashes() {
    let mut device = Device::connected(|_| {});
    assert_eq!(begins(&mut device, "t-1", "r-1", "r-1"), None, "there was none before");
    leaves(&mut device, "t-1", "r-1", b"first");
    device.crash();
    device.connect();
    assert_eq!(begins(&mut device, "t-2", "r-2", "r-1"), None, "no verdict yet");
    leaves(&mut device, "t-2", "r-2", b"second");
    device.accept("r-1");
    device.crash();
    device.connect();
    device.accept("r-1");
    assert_eq!(begins(&mut device, "t-3", "r-3", "r-1").as_deref(), Some(&b"first"[..]));
    leaves(&mut device, "t-3", "r-3", b"third");
    device.reject("r-2", Rejection::RoundClosed);
    device.reject("r-3", Rejection::Shape);
    assert_eq!(begins(&mut device, "t-4", "r-4", "r-1").as_deref(), Some(&b"first"[..]));
    leaves(&mut device, "t-4", "r-4", b"fourth");
    device.accept("r-4");
    device.accept("r-4");
    device.crash();
    device.connect();
    assert_eq!(begins(&mut device, "t-5", "r-5", "r-1").as_deref(), Some(&b"fourth"[..]));
    assert_eq!((device.kept("states"), device.kept("state_values")), (1, 1));
}

#[test]
fn whatever_is_killed_between_the_verdict_and_the_next_task_the_state_is_the_same() {
    // After each of so many steps the power goes.
    for killed in 0..6 {
        let mut device = Device::connected(|_| {});
        let mut step = 0;
        let mut survives = |device: &mut Device| {
            if step == killed {
                device.crash();
                device.connect();
            }
            step += 1;
        };
        begins(&mut device, "t-1", "r-1", "r-1");
        leaves(&mut device, "t-1", "r-1", b"first");
        survives(&mut device);
        device.wait(Duration::from_secs(5));
        survives(&mut device);
        device.accept("r-1");
        survives(&mut device);
        device.accept("r-1");
        survives(&mut device);
        device.wait(Duration::from_secs(5));
        survives(&mut device);
        device.accept("r-1");
        survives(&mut device);
        let given = begins(&mut device, "t-2", "r-2", "r-1");
        assert_eq!(given.as_deref(), Some(&b"first"[..]), "killed after step {killed}");
    }
}

#[test]
fn a_state_of_another_series_line_or_workload_is_not_given() {
    let mut device = Device::connected(|_| {});
    begins(&mut device, "t-1", "r-1", "r-1");
    leaves(&mut device, "t-1", "r-1", b"first");
    device.accept("r-1");
    assert_eq!(begins(&mut device, "t-2", "r-2", "r-2"), None, "the series began anew");
    device.finish("t-2", 0, crate::device::failed("trap", "it fell"));
    let mut start = asked("t-3", "r-3");
    start.file = Some("AGFzbQE=".to_owned());
    device.hear(&start);
    device.hear_envelope(variate("r-3", "r-1"));
    assert_eq!(device.variates.take().expect("it runs").state, None, "another program");
    device.finish("t-3", 0, crate::device::failed("trap", "it fell"));
    assert_eq!(begins(&mut device, "t-4", "r-4", "r-1").as_deref(), Some(&b"first"[..]));
}

#[test]
fn it_does_not_matter_how_the_bytes_of_a_workload_come() {
    // What the text of the others' stands for.
    let blob = Manifest::of(b"\0asm", 1 << 10, Format::wasm()).expect("a manifest");
    let mut device = Device::connected(|_| {});
    assert_eq!(begins(&mut device, "t-1", "r-1", "r-1"), None);
    device.variates = None;
    leaves(&mut device, "t-1", "r-1", b"first");
    device.accept("r-1");
    device.hear(&TaskStart { file: None, file_blob: Some(blob.clone()), ..asked("t-2", "r-2") });
    let sha256 = blob.sha256();
    let have = Ok(Bitmap::full(blob.count()));
    device.step(Input::Report(Report::Begun { sha256, have }));
    device.step(Input::Report(Report::Fetched { sha256, result: Ok(()) }));
    device.hear_envelope(variate("r-2", "r-1"));
    let given = device.variates.take().expect("it runs");
    assert_eq!(given.state.as_deref(), Some(&b"first"[..]));
}

#[test]
fn a_guest_that_leaves_no_state_or_too_long_a_one_has_failed() {
    let mut device = Device::connected(|config| config.state_bytes_max = 5);
    begins(&mut device, "t-1", "r-1", "r-1");
    device.print("t-1", 0, &update("r-1", 0));
    let result = device.take_result();
    assert_eq!(result.code.expect("a code").0, "no_state");
    begins(&mut device, "t-2", "r-2", "r-1");
    leaves(&mut device, "t-2", "r-2", b"longer");
    let result = device.take_result();
    assert_eq!(result.code.expect("a code").0, "state_too_large");
    assert!(result.error.expect("a reason").contains("6 bytes, at most 5"));
    assert!(device.take_payloads("r-1").is_empty() && device.take_payloads("r-2").is_empty());
    assert_eq!((device.kept("states"), device.agent.slots_taken()), (0, 0));
}

#[test]
fn a_state_goes_with_an_update_in_pieces_too() {
    let mut device = Device::connected(|_| {});
    let blob = Manifest::of(&[1; 4000], 1024, Format::safetensors()).expect("a manifest");
    let metadata: Metadata = [("num_samples".to_owned(), "7".to_owned())].into();
    begins(&mut device, "t-1", "r-1", "r-1");
    device.pin(blob.sha256());
    let packed = |state| {
        Outcome::Packed(PackedUpdate { metadata: metadata.clone(), blob: blob.clone(), state })
    };
    device.finish("t-1", 0, packed(None));
    assert_eq!(device.pins(blob.sha256()), 0, "nobody needs it");
    begins(&mut device, "t-2", "r-2", "r-1");
    device.pin(blob.sha256());
    device.finish("t-2", 0, packed(Some(Bytes::from_static(b"state"))));
    device.accept("r-2");
    assert_eq!(begins(&mut device, "t-3", "r-3", "r-1").as_deref(), Some(&b"state"[..]));
}

#[test]
fn a_state_waits_while_its_update_is_packed() {
    let mut device = Device::connected(|config| config.message_bytes_max = 10);
    begins(&mut device, "t-1", "r-1", "r-1");
    leaves(&mut device, "t-1", "r-1", b"packed");
    let blob = Manifest::of(&[1; 4000], 1024, Format::safetensors()).expect("a manifest");
    device.pin(blob.sha256());
    let (task, attempt) = (task_id("t-1"), 0);
    device.step(Input::Report(Report::Packed { task, attempt, result: Ok(blob) }));
    device.accept("r-1");
    assert_eq!(begins(&mut device, "t-2", "r-2", "r-1").as_deref(), Some(&b"packed"[..]));
}

#[test]
fn an_owner_who_grants_no_state_has_the_task_refused() {
    let mut device = Device::connected(|config| config.state_bytes_max = 0);
    device.hear(&asked("t-1", "r-1"));
    let result = device.take_result();
    assert_eq!(result.code.expect("a code").0, "no_state");
    device.hear(&federated("t-2", 0, "r-2", 0));
    device.hear_model(0);
    assert!(device.runs.contains_key(&(task_id("t-2"), 0)), "others run as before");
    assert_eq!(device.variates, None);
}

#[test]
fn a_control_variate_that_does_not_come_fails_the_task_and_nothing_listens_on() {
    let mut device = Device::connected(|_| {});
    device.hear(&asked("t-1", "r-1"));
    device.hear_model(0);
    device.wait(Duration::from_secs(40));
    let result = device.take_result();
    assert_eq!(result.code.expect("a code").0, "no_variate");
    assert!(result.error.expect("a reason").contains("control variate of round r-1"));
    let topic = Topic::RoundVariate { round: round_id("r-1") };
    assert!(!device.listening.contains(&Filter::Exactly(topic)));
}

#[test]
fn encoded_control_variates_are_refused() {
    let mut device = Device::connected(|_| {});
    let mut start = asked("t-1", "r-1");
    start.env.insert("ENCODING".to_owned(), "delta".to_owned());
    device.hear(&start);
    assert!(device.take_result().error.expect("a reason").contains("control variates"));
}
