//! Models and updates that are larger than what the broker is given in one message: they go in
//! pieces, and everything that holds for whole ones holds for them.

use std::time::Duration;

use e2e::{
    BrokerKind, Dice, Peer, RoundPlan, StackPlan, Turn, Victim, judge, say, versions_are_whole,
};

/// What is sent as one message, in bytes; the least that can be set.
const MESSAGE_BYTES_MAX: u32 = 16 << 10;
/// Numbers of the model: some 64 KB, in five pieces.
const DIMS: usize = 8000;
const PROPLETS: usize = 3;
const CREATE: &str = "m/demo/c/fl/control/proplet/create";

#[test]
fn everybody_counts_once_in_pieces_on_the_embedded_broker() {
    everybody_counts_once(BrokerKind::Embedded);
}

#[test]
fn everybody_counts_once_in_pieces_on_mosquitto() {
    everybody_counts_once(BrokerKind::Mosquitto);
}

#[test]
fn the_coordinator_dies_among_pieces() {
    dies(Victim::Coordinator, BrokerKind::Embedded);
}

#[test]
fn the_model_server_dies_among_pieces() {
    dies(Victim::ModelServer, BrokerKind::Embedded);
}

#[test]
fn a_proplet_dies_among_pieces() {
    dies(Victim::Proplet, BrokerKind::Embedded);
}

#[test]
fn mosquitto_dies_among_pieces() {
    dies(Victim::Broker, BrokerKind::Mosquitto);
}

fn plan(broker: BrokerKind) -> StackPlan {
    let mut plan = StackPlan::new(broker, PROPLETS).with("PROPLET_ALIVE_INTERVAL_S", 2);
    plan.fleet.dims = DIMS;
    for service in ["MANAGER", "COORDINATOR", "MODEL_SERVER", "PROPLET"] {
        plan = plan.with(&format!("{service}_PAYLOAD_BYTES_MAX"), MESSAGE_BYTES_MAX);
    }
    plan
}

fn everybody_counts_once(broker: BrokerKind) {
    let _turn = Turn::take();
    let plan = plan(broker);
    let stack = plan.start();
    let operator = stack.operator();
    for base in 0..3 {
        let round = RoundPlan::one_hot(&plan.fleet, &format!("r-{base}"), base);
        let complete = operator.run(&round);
        assert_eq!(complete.model_version.0, base + 1, "{complete:?}");
        assert_eq!(judge(&operator, &plan.fleet, &complete).len(), PROPLETS, "{complete:?}");
    }
    versions_are_whole(&operator, 3);
    let pieces = operator.peer().all("fl/rounds/+/updates/+/chunks/+");
    assert!(pieces.len() >= 3 * PROPLETS * 4, "{} pieces of updates", pieces.len());
}

/// In each round at another point among the pieces of updates and of models.
fn dies(victim: Victim, broker: BrokerKind) {
    let _turn = Turn::take();
    let mut dice = Dice::of_story(&format!("pieces {victim:?} {broker:?}"));
    let plan = plan(broker);
    let mut stack = plan.start();
    let operator = stack.operator();
    let watch = Peer::connect(stack.field().port(), &[CREATE]);
    let points = [
        "fl/rounds/{r}/updates/+/chunks/+",
        "fl/rounds/{r}/wants/+",
        "fl/models/publish/wants",
        "fl/models/publish/+/chunks/+",
    ];
    for (base, point) in (0..).zip(points) {
        let round = RoundPlan::one_hot(&plan.fleet, &format!("r-{base}"), base);
        let from = operator.start(&round);
        let topic = point.replace("{r}", &round.id);
        operator.peer().wait_after(from, &topic, |_| true);
        // Somewhere among the pieces, or a little after.
        std::thread::sleep(Duration::from_millis(dice.below(100)));
        let killed = watch.cursor();
        stack.kill(victim);
        stack.start_again(victim);
        if victim == Victim::Proplet {
            // A round that starts before the fleet is whole again goes on without the missing one.
            watch.wait_after(killed, CREATE, |_| true);
        }
        let complete = operator.wait_for_complete(&round.id);
        say(&format!("{victim:?} killed at {topic}: {} counted", complete.num_updates));
        assert_eq!(complete.model_version.0, base + 1, "killed at {topic}: {complete:?}");
        let counted = judge(&operator, &plan.fleet, &complete);
        assert_eq!(counted.len(), PROPLETS, "killed at {topic}: {complete:?}");
    }
    versions_are_whole(&operator, points.len() as u64);
}
