//! Rounds whose updates go encoded: everybody counts once, short or in pieces, whoever dies, and
//! what is no such update gets its reason.

use e2e::{BrokerKind, Dice, Peer, RoundPlan, StackPlan, Turn, Victim, judge, versions_are_whole};
use serde_json::json;

const PROPLETS: usize = 3;
const LOSSLESS: [&str; 2] = ["deflate", "delta"];
const SMALL: &str = "delta+topk:0.1+int8+deflate";
const CREATE: &str = "m/demo/c/fl/control/proplet/create";

#[test]
fn encoded_updates_count_once_on_the_embedded_broker() {
    everybody_counts_once(BrokerKind::Embedded);
}

#[test]
fn encoded_updates_count_once_on_mosquitto() {
    everybody_counts_once(BrokerKind::Mosquitto);
}

fn asking(plan: &StackPlan, id: &str, base: u64, encoding: &str) -> RoundPlan {
    let mut round = RoundPlan::one_hot(&plan.fleet, id, base);
    round.encoding = Some(encoding.to_owned());
    round
}

fn everybody_counts_once(broker: BrokerKind) {
    let _turn = Turn::take();
    let plan = StackPlan::new(broker, PROPLETS);
    let stack = plan.start();
    let operator = stack.operator();
    let mut base = 0;
    for encoding in LOSSLESS {
        let round = asking(&plan, &format!("r-{base}"), base, encoding);
        let complete = operator.run(&round);
        assert_eq!(judge(&operator, &plan.fleet, &complete).len(), PROPLETS, "{encoding}");
        base += 1;
    }
    for encoding in [SMALL, "f16", SMALL] {
        let id = format!("r-{base}");
        let complete = operator.run(&asking(&plan, &id, base, encoding));
        assert_eq!(complete.num_updates, PROPLETS, "{encoding}: {complete:?}");
        let said = operator.peer().all(&format!("fl/rounds/{id}/updates/+"));
        let is_stream = |payload: &[u8]| payload.starts_with(&[0x78, 0xbb]);
        assert!(said.iter().all(|it| is_stream(&it.payload) == encoding.ends_with("deflate")));
        base += 1;
    }
    versions_are_whole(&operator, base);
}

#[test]
fn encoded_updates_in_pieces_survive_the_death_of_anyone() {
    let _turn = Turn::take();
    let mut dice = Dice::of_story("encodings in pieces");
    let mut plan = StackPlan::new(BrokerKind::Embedded, PROPLETS);
    plan.fleet.dims = 8000;
    for service in ["MANAGER", "COORDINATOR", "MODEL_SERVER", "PROPLET"] {
        plan = plan.with(&format!("{service}_PAYLOAD_BYTES_MAX"), 16 << 10);
    }
    let mut stack = plan.with("PROPLET_ALIVE_INTERVAL_S", 2).start();
    let operator = stack.operator();
    let watch = Peer::connect(stack.field().port(), &[CREATE]);
    let mut plan = StackPlan::new(BrokerKind::Embedded, PROPLETS);
    plan.fleet.dims = 8000;
    for (base, victim) in (0..).zip([Victim::Coordinator, Victim::Proplet]) {
        let round = asking(&plan, &format!("r-{base}"), base, "delta");
        let from = operator.start(&round);
        let topic = format!("fl/rounds/r-{base}/updates/+/chunks/+");
        operator.peer().wait_after(from, &topic, |_| true);
        std::thread::sleep(std::time::Duration::from_millis(dice.below(100)));
        let killed = watch.cursor();
        stack.kill(victim);
        stack.start_again(victim);
        if victim == Victim::Proplet {
            watch.wait_after(killed, CREATE, |_| true);
        }
        let complete = operator.wait_for_complete(&round.id);
        assert_eq!(judge(&operator, &plan.fleet, &complete).len(), PROPLETS, "{victim:?}");
    }
    // What top-k left out is a file here, too.
    for base in 2..4 {
        let complete = operator.run(&asking(&plan, &format!("r-{base}"), base, SMALL));
        assert_eq!(complete.num_updates, PROPLETS, "{complete:?}");
    }
    versions_are_whole(&operator, 4);
}

#[test]
fn a_proplet_that_dies_with_what_it_left_out_goes_on() {
    let _turn = Turn::take();
    let plan = StackPlan::new(BrokerKind::Mosquitto, PROPLETS).with("PROPLET_ALIVE_INTERVAL_S", 2);
    let mut stack = plan.start();
    let operator = stack.operator();
    let watch = Peer::connect(stack.field().port(), &[CREATE]);
    for base in 0..3 {
        let round = asking(&plan, &format!("r-{base}"), base, SMALL);
        let from = operator.start(&round);
        // Killed before, it would have nothing left over to go on with.
        operator
            .peer()
            .wait_after(from, &format!("fl/rounds/r-{base}/updates/proplet-1"), |_| true);
        let killed = watch.cursor();
        stack.kill(Victim::Proplet);
        stack.start_again(Victim::Proplet);
        watch.wait_after(killed, CREATE, |_| true);
        let complete = operator.wait_for_complete(&round.id);
        assert_eq!(complete.num_updates, PROPLETS, "{complete:?}");
    }
}

#[test]
fn an_encoding_that_nobody_knows_ends_the_round_and_one_that_lies_gets_its_reason() {
    let _turn = Turn::take();
    let plan = StackPlan::new(BrokerKind::Mosquitto, 1).with("MANAGER_LIVENESS_S", 3600);
    let stack = plan.start();
    let operator = stack.operator();
    let mut round = asking(&plan, "r-unknown", 0, "shrink");
    operator.start(&round);
    let e2e::Ended::Failed(failed) = operator.wait_for_end("r-unknown") else {
        panic!("it made a model")
    };
    assert_eq!(failed["reason"], "bad_start", "{failed}");

    let peer = Peer::connect(stack.field().port(), &[]);
    let create = json!({"proplet_id": "liar", "namespace": "", "metadata": {}});
    peer.publish(CREATE, create.to_string());
    stack.http.wait_for_alive(2);
    round = asking(&plan, "r-lies", 0, "deflate");
    round.participants.push("liar".to_owned());
    round.k_of_n = 2;
    round.timeout_s = 20;
    operator.start(&round);
    operator.peer().wait_for("fl/rounds/r-lies/acks/proplet-1");
    // A zlib stream of nothing, one that is cut, and text.
    let nothing = [0x78, 0x9c, 0x03, 0, 0, 0, 0, 1];
    let plain = plan.fleet.update(&"proplet-1".parse().unwrap(), "r-lies", &round.model_uri());
    let plain = plain.to_string().replace("\"proplet-1\"", "\"liar\"");
    for payload in [&nothing[..], &nothing[..3], plain.as_bytes()] {
        let from = operator.peer().cursor();
        peer.publish("fl/rounds/r-lies/updates/liar", payload.to_vec());
        let ack = operator.peer().wait_after(from, "fl/rounds/r-lies/acks/liar", |_| true);
        assert_eq!(ack.json()["reason"], "malformed", "{payload:?}");
    }
    let complete = operator.wait_for_complete("r-lies");
    assert_eq!(complete.num_updates, 1, "{complete:?}");
}
