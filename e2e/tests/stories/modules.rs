//! Modules that are larger than what the broker is given in one message: they go in pieces, once
//! for everybody, whoever dies meanwhile.

use std::{fs, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use e2e::{
    BrokerKind, Dice, Peer, RoundPlan, StackPlan, Turn, Victim, judge, one_hot_base64, say,
    versions_are_whole,
};
use protocol::message::TaskStart;
use serde_json::json;

use crate::guest_bytes;

/// What is sent as one message, in bytes; the least that can be set.
const MESSAGE_BYTES_MAX: u32 = 16 << 10;
/// What a module is made longer by: some twenty pieces and more.
const PADDING: usize = 400_000;
const PROPLETS: usize = 3;
const PIECES: &str = "m/demo/c/fl/control/manager/modules/+/chunks/+";
const STARTS: &str = "m/demo/c/fl/control/manager/+/start";
const CREATE: &str = "m/demo/c/fl/control/proplet/create";

#[test]
fn a_long_module_goes_once_in_pieces_on_the_embedded_broker() {
    goes_once(BrokerKind::Embedded);
}

#[test]
fn a_long_module_goes_once_in_pieces_on_mosquitto() {
    goes_once(BrokerKind::Mosquitto);
}

#[test]
fn the_manager_dies_among_the_pieces_of_modules() {
    dies(Victim::Manager, BrokerKind::Embedded);
}

#[test]
fn a_proplet_dies_among_the_pieces_of_modules() {
    dies(Victim::Proplet, BrokerKind::Embedded);
}

#[test]
fn mosquitto_dies_among_the_pieces_of_modules() {
    dies(Victim::Broker, BrokerKind::Mosquitto);
}

fn plan(broker: BrokerKind) -> StackPlan {
    let mut plan = StackPlan::new(broker, PROPLETS).with("PROPLET_ALIVE_INTERVAL_S", 2);
    for service in ["MANAGER", "COORDINATOR", "MODEL_SERVER", "PROPLET"] {
        plan = plan.with(&format!("{service}_PAYLOAD_BYTES_MAX"), MESSAGE_BYTES_MAX);
    }
    plan
}

/// A module with a section of no meaning behind it, each `kind` another one.
fn padded(mut module: Vec<u8>, kind: u8) -> Vec<u8> {
    let mut size = PADDING + 2;
    module.push(0);
    while size > 127 {
        module.push(u8::try_from(size & 127).unwrap() | 128);
        size >>= 7;
    }
    module.push(u8::try_from(size).unwrap());
    module.extend([1, b'x']);
    module.extend((0..PADDING).map(|n| kind.wrapping_add(u8::try_from(n / 500 % 256).unwrap())));
    module
}

fn one_hot(kind: u8) -> String {
    STANDARD.encode(padded(STANDARD.decode(one_hot_base64()).unwrap(), kind))
}

fn goes_once(broker: BrokerKind) {
    let _turn = Turn::take();
    let plan = plan(broker);
    let mut stack = plan.start();
    let operator = stack.operator();
    let tap = Peer::connect(stack.field().port(), &["m/#"]);
    stack.wait_until_introduced();
    for base in 0..2 {
        let mut round = RoundPlan::one_hot(&plan.fleet, &format!("r-{base}"), base);
        round.file = Some(one_hot(1));
        let complete = operator.run(&round);
        assert_eq!(judge(&operator, &plan.fleet, &complete).len(), PROPLETS, "{complete:?}");
    }
    versions_are_whole(&operator, 2);
    let starts: Vec<TaskStart> = tap
        .all(STARTS)
        .iter()
        .map(|heard| {
            assert!(heard.payload.len() < MESSAGE_BYTES_MAX as usize, "{}", heard.text());
            serde_json::from_slice(&heard.payload).unwrap()
        })
        .collect();
    assert!(starts.len() >= 2 * PROPLETS && starts.iter().all(|start| start.file.is_none()));
    let blob = starts[0].file_blob.clone().expect("in pieces");
    assert!(blob.count() > 20, "{blob:?}");
    let said = tap.all(PIECES).len();
    assert_eq!(said, blob.count() as usize, "once for {PROPLETS} proplets and two rounds");

    // Another module, uploaded.
    let module = stack.dir().join("module.wasm");
    fs::write(&module, padded(guest_bytes("valid-update"), 2)).unwrap();
    let created = stack.http.post("/tasks", &json!({"name": "uploaded"}));
    let id = created.body["id"].as_str().unwrap();
    assert_eq!(stack.http.upload(id, &module).status, 200);
    for _ in 0..2 {
        let started = stack.http.ask("POST", &format!("/tasks/{id}/start"), None);
        assert_eq!(started.status, 200, "{started:?}");
        let task = stack.http.wait_for_end(id);
        assert_eq!(task["state"], "Completed", "{task}");
    }
    // Without its task, nothing of it stays at the broker.
    let deleted = stack.http.ask("DELETE", &format!("/tasks/{id}"), None);
    assert_eq!(deleted.status, 204, "{deleted:?}");
    tap.wait("the pieces leave the broker", |heard| {
        let gone = heard.iter().filter(|m| m.is_on(PIECES) && m.payload.is_empty()).count();
        (gone > 20).then_some(())
    });
}

/// In each round among the pieces of another module.
fn dies(victim: Victim, broker: BrokerKind) {
    let _turn = Turn::take();
    let mut dice = Dice::of_story(&format!("modules {victim:?} {broker:?}"));
    let plan = plan(broker);
    let mut stack = plan.start();
    let operator = stack.operator();
    let watch = Peer::connect(stack.field().port(), &[CREATE, PIECES]);
    for base in 0..3_u8 {
        let mut round = RoundPlan::one_hot(&plan.fleet, &format!("r-{base}"), base.into());
        round.file = Some(one_hot(base));
        let from = watch.cursor();
        operator.start(&round);
        watch.wait_after(from, PIECES, |heard| !heard.retained && !heard.payload.is_empty());
        // Somewhere among the pieces, or a little after.
        std::thread::sleep(Duration::from_millis(dice.below(60)));
        let killed = watch.cursor();
        stack.kill(victim);
        stack.start_again(victim);
        if victim == Victim::Proplet {
            // A round that starts before the fleet is whole again goes on without the missing one.
            watch.wait_after(killed, CREATE, |_| true);
        }
        let complete = operator.wait_for_complete(&round.id);
        say(&format!("{victim:?} killed among pieces: {} counted", complete.num_updates));
        assert_eq!(complete.model_version.0, u64::from(base) + 1, "{complete:?}");
        assert_eq!(judge(&operator, &plan.fleet, &complete).len(), PROPLETS, "{complete:?}");
    }
    versions_are_whole(&operator, 3);
}
