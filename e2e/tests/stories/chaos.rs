//! Every message is said two or three times, late and out of order; the models stay exact.
//!
//! Manager, coordinator, model server and proplets have a broker each, and only the proxy between.

use e2e::{
    Bridge, BrokerKind, Dice, Habits, RoundPlan, Route, Side, StackPlan, Turn, judge,
    versions_are_whole,
};

const MANAGER: Side = 0;
const COORDINATOR: Side = 1;
const MODELS: Side = 2;
/// The proplets and the operator.
const FIELD: Side = 3;

/// Who has to hear whom: the contract's topic table.
const ROUTES: &[Route] = &[
    said("fl/rounds/start", FIELD, &[MANAGER, COORDINATOR]),
    said("m/demo/c/fl/control/proplet/+", FIELD, &[MANAGER]),
    said("m/demo/c/fl/control/manager/+", MANAGER, &[FIELD]),
    said("m/demo/c/fl/control/manager/+/+", MANAGER, &[FIELD]),
    kept("m/demo/c/fl/control/manager/modules/+/chunks/+", MANAGER, &[FIELD]),
    said("fl/rounds/+/updates/+", FIELD, &[MANAGER]),
    said("fml/updates", MANAGER, &[COORDINATOR]),
    said("fl/rounds/+/absent", MANAGER, &[COORDINATOR, FIELD]),
    said("fl/rounds/+/opened", COORDINATOR, &[FIELD]),
    said("fl/rounds/+/acks/+", COORDINATOR, &[FIELD]),
    said("fl/rounds/+/complete", COORDINATOR, &[FIELD]),
    said("fl/rounds/+/failed", COORDINATOR, &[FIELD]),
    said("fl/models/publish", COORDINATOR, &[MODELS]),
    kept("fl/models/latest", MODELS, &[COORDINATOR, FIELD]),
    kept("fl/models/global_model_v0", MODELS, &[COORDINATOR, FIELD]),
    kept("fl/models/global_model_v1", MODELS, &[COORDINATOR, FIELD]),
    kept("fl/models/global_model_v2", MODELS, &[COORDINATOR, FIELD]),
    kept("fl/models/global_model_v3", MODELS, &[COORDINATOR, FIELD]),
    kept("fl/models/global_model_v4", MODELS, &[COORDINATOR, FIELD]),
    kept("fl/models/global_model_v5", MODELS, &[COORDINATOR, FIELD]),
];

const fn said(filter: &'static str, from: Side, to: &'static [Side]) -> Route {
    Route { filter, from, to, retain: false }
}

const fn kept(filter: &'static str, from: Side, to: &'static [Side]) -> Route {
    Route { filter, from, to, retain: true }
}

#[test]
fn models_are_exact_when_everything_is_repeated_delayed_and_reordered() {
    let crossed = five_rounds("chaos", 0);
    // 5 rounds, 4 proplets, a dozen messages each: the proxy was in the way of all of it.
    assert!(crossed > 200, "only {crossed} copies crossed the bridge");
}

#[test]
fn models_are_exact_when_every_fifth_message_is_lost_as_well() {
    five_rounds("loss", 20);
}

/// How many copies crossed.
fn five_rounds(story: &str, lost_percent: u64) -> u64 {
    let _turn = Turn::take();
    let mut plan = StackPlan::new(BrokerKind::Mosquitto, 4).with("PROPLET_ALIVE_INTERVAL_S", 1);
    plan.apart = true;
    let stack = plan.start();
    let ports: Vec<u16> = stack.brokers.iter().map(e2e::Broker::port).collect();
    let habits = Habits { dice: Dice::of_story(story), lost_percent };
    let bridge = Bridge::build(&ports, ROUTES, habits);
    let operator = stack.operator();
    for base in 0..5 {
        let mut round = RoundPlan::one_hot(&plan.fleet, &format!("r-{base}"), base);
        round.hyperparams = plan.fleet.hyperparams(20);
        let complete = operator.run(&round);
        assert_eq!(complete.model_version.0, base + 1, "{complete:?}");
        assert_eq!(judge(&operator, &plan.fleet, &complete).len(), 4, "{complete:?}");
    }
    versions_are_whole(&operator, 5);
    bridge.crossed()
}
