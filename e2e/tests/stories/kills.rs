//! `kill -9` of each part, at many points of three-round runs: no accepted update is lost or counted
//! twice, each round makes one version, and every run comes to its end.
//!
//! `AILERON_E2E_KILLS` sets how many runs of three rounds each victim goes through, 3 by default:
//! the named points first, then points in time drawn at random.

use std::time::Duration;

use e2e::{
    BrokerKind, Cursor, Deadline, Dice, Operator, Peer, RoundPlan, Stack, StackPlan, Turn, Victim,
    judge, say, versions_are_whole,
};

const ROUNDS: u64 = 3;
const PROPLETS: usize = 3;
/// Longest draw of a random point: twice what a round takes on an idle machine.
const DELAY_MS_MAX: u64 = 900;

/// When to pull the plug.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// At the first message on such a topic of the round; `{r}` is its id.
    Heard(&'static str),
    After(Duration),
}

const POINTS: &[Point] = &[
    Point::Heard("fl/rounds/{r}/opened"),
    Point::Heard("fl/rounds/{r}/updates/+"),
    Point::Heard("fl/rounds/{r}/acks/+"),
    Point::Heard("fml/updates"),
    Point::Heard("fl/models/publish"),
    Point::Heard("fl/models/global_model_v{v}"),
    Point::Heard("fl/rounds/{r}/complete"),
];

const ALL: &[Victim] =
    &[Victim::Manager, Victim::Broker, Victim::Proplet, Victim::Coordinator, Victim::ModelServer];

#[test]
fn the_coordinator_dies_and_nothing_is_lost() {
    dies(Victim::Coordinator, BrokerKind::Embedded);
}

#[test]
fn the_manager_dies_and_nothing_is_lost() {
    dies(Victim::Manager, BrokerKind::Embedded);
}

#[test]
fn the_model_server_dies_and_nothing_is_lost() {
    dies(Victim::ModelServer, BrokerKind::Embedded);
}

#[test]
fn a_proplet_dies_and_nothing_is_lost() {
    dies(Victim::Proplet, BrokerKind::Embedded);
}

#[test]
fn the_embedded_broker_dies_and_nothing_is_lost() {
    dies(Victim::Broker, BrokerKind::Embedded);
}

#[test]
fn mosquitto_dies_and_nothing_is_lost() {
    dies(Victim::Broker, BrokerKind::Mosquitto);
}

/// As when the power fails: all processes at the same moment, and all back in any order.
#[test]
fn everything_dies_at_once_and_nothing_is_lost() {
    die(ALL, BrokerKind::Embedded);
}

fn dies(victim: Victim, broker: BrokerKind) {
    die(&[victim], broker);
}

fn die(victims: &[Victim], broker: BrokerKind) {
    let _turn = Turn::take();
    let mut dice = Dice::of_story(&format!("kill {victims:?} on {broker:?}"));
    let plan = StackPlan::new(broker, PROPLETS).with("PROPLET_ALIVE_INTERVAL_S", 2);
    let mut stack = plan.start();
    let operator = stack.operator();
    let watch = Peer::connect(stack.field().port(), &["m/demo/c/fl/control/proplet/create"]);
    for base in 0..runs() * ROUNDS {
        let point = usize::try_from(base).ok().and_then(|at| POINTS.get(at)).copied();
        let point =
            point.unwrap_or_else(|| Point::After(Duration::from_millis(dice.below(DELAY_MS_MAX))));
        let round = RoundPlan::one_hot(&plan.fleet, &format!("r-{base}"), base);
        let from = operator.start(&round);
        await_point(&operator, &round, from, point);
        let killed = watch.cursor();
        victims.iter().for_each(|victim| stack.kill(*victim));
        victims.iter().for_each(|victim| stack.start_again(*victim));
        if victims.contains(&Victim::Proplet) {
            // A round that starts before the fleet is whole again goes on without the missing one.
            watch.wait_after(killed, "m/demo/c/fl/control/proplet/create", |_| true);
        }
        let complete = operator.wait_for_complete(&round.id);
        say(&format!(
            "{victims:?} killed at {point:?}: {} of {PROPLETS} counted",
            complete.num_updates
        ));
        assert_eq!(complete.model_version.0, base + 1, "killed at {point:?}: {complete:?}");
        let counted = judge(&operator, &plan.fleet, &complete);
        assert_eq!(counted.len(), PROPLETS, "killed at {point:?}: {complete:?}");
    }
    versions_are_whole(&operator, runs() * ROUNDS);
    nobody_was_rejected(&operator);
    everything_still_runs(&mut stack);
}

fn runs() -> u64 {
    let given = std::env::var("AILERON_E2E_KILLS").ok();
    given.map_or(3, |text| text.parse().expect("AILERON_E2E_KILLS takes a whole number"))
}

fn await_point(operator: &Operator, round: &RoundPlan, from: Cursor, point: Point) {
    match point {
        Point::Heard(pattern) => {
            let version = (round.base_version + 1).to_string();
            let topic = pattern.replace("{r}", &round.id).replace("{v}", &version);
            operator.peer().wait_after(from, &topic, |_| true);
        }
        Point::After(delay) => {
            // The point in time is the subject here, not something to wait for.
            let never: Option<()> = operator.peer().hears(Deadline::after(delay), |_| None);
            assert_eq!(never, None);
        }
    }
}

/// Everybody here is honest, so every rejection is a mistake.
fn nobody_was_rejected(operator: &Operator) {
    let rejected: Vec<String> = operator
        .peer()
        .all("fl/rounds/+/acks/+")
        .iter()
        .filter(|ack| ack.json()["verdict"] != "accepted")
        .map(|ack| format!("{} {}", ack.topic, ack.text()))
        .collect();
    assert!(rejected.is_empty(), "honest updates were rejected: {rejected:?}");
}

fn everything_still_runs(stack: &mut Stack) {
    let services = [&mut stack.manager, &mut stack.coordinator, &mut stack.model_server];
    for process in services.into_iter().chain(&mut stack.proplets) {
        assert_eq!(process.has_ended(), None, "a process ended by itself");
    }
}
