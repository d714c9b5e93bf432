//! A clean end: exit code 0, `offline` said, ports free, nobody left behind; and who is not there is
//! reported at once, not waited for.

use std::net::TcpListener;

use e2e::{BrokerKind, Ended, OneHotFleet, RoundPlan, Stack, StackPlan, Turn, Victim, judge};
use serde_json::json;

#[test]
fn everybody_ends_cleanly_when_told_to() {
    let _turn = Turn::take();
    let mut stack = StackPlan::new(BrokerKind::Embedded, 2).start();
    let operator = stack.operator();
    let watch = e2e::Peer::connect(stack.field().port(), &["m/#"]);
    for process in services(&mut stack) {
        let status = process.terminate();
        assert_eq!(status.code(), Some(0), "{}", process.log());
    }
    for number in 1..=2 {
        let id = format!("proplet-{number}");
        watch.wait("a proplet says that it is offline", |heard| {
            let on = |m: &&e2e::Heard| m.is_on("m/demo/c/fl/control/proplet/alive");
            let said = heard.iter().filter(on).map(e2e::Heard::json);
            said.into_iter().find(|it| it["proplet_id"] == *id && it["status"] == "offline")
        });
    }
    let port = stack.http.port;
    assert!(TcpListener::bind(("127.0.0.1", port)).is_ok(), "port {port} is still taken");
    drop(operator);
    let broker = stack.brokers[0].process();
    assert_eq!(broker.terminate().code(), Some(0), "{}", broker.log());
    let port = stack.brokers[0].port();
    assert!(TcpListener::bind(("127.0.0.1", port)).is_ok(), "port {port} is still taken");
}

#[test]
fn services_end_cleanly_also_when_the_broker_is_away() {
    let _turn = Turn::take();
    let mut stack = StackPlan::new(BrokerKind::Embedded, 1).start();
    drop(stack.operator());
    stack.kill(Victim::Broker);
    for process in services(&mut stack) {
        let status = process.terminate();
        assert_eq!(status.code(), Some(0), "{}", process.log());
    }
}

#[test]
fn a_proplet_told_to_end_in_the_middle_of_a_task_runs_it_again_when_it_is_back() {
    let _turn = Turn::take();
    let plan = StackPlan::new(BrokerKind::Embedded, 1);
    let mut stack = plan.start();
    let operator = stack.operator();
    let watch = e2e::Peer::connect(stack.field().port(), &["m/#"]);
    let mut round = RoundPlan::one_hot(&plan.fleet, "r-1", 0);
    round.hyperparams = plan.fleet.hyperparams(1500);
    operator.start(&round);
    watch.wait("the task is on its way", |heard| {
        heard.iter().any(|m| m.topic.ends_with("/start")).then_some(())
    });
    assert_eq!(stack.proplets[0].terminate().code(), Some(0), "{}", stack.proplets[0].log());
    stack.proplets[0].start_again();
    let complete = operator.wait_for_complete("r-1");
    assert_eq!(judge(&operator, &plan.fleet, &complete).len(), 1);
}

#[test]
fn who_is_unknown_or_not_alive_is_reported_absent_at_once() {
    let _turn = Turn::take();
    let plan = StackPlan::new(BrokerKind::Embedded, 2);
    let mut stack = plan.start();
    let operator = stack.operator();
    stack.proplets[1].kill();
    stack.http.wait_for_alive(1);
    let fleet = OneHotFleet::named(&["proplet-1", "proplet-2", "nobody"].map(str::to_owned));
    let mut round = RoundPlan::one_hot(&fleet, "r-1", 0);
    // Far longer than the story waits: the round must not wait for the absent.
    round.timeout_s = 3600;
    operator.start(&round);
    for (id, reason) in [("nobody", "unknown"), ("proplet-2", "not_alive")] {
        let absent = operator.peer().wait("an absence", |heard| {
            let on = |m: &&e2e::Heard| m.is_on("fl/rounds/r-1/absent");
            heard.iter().filter(on).map(e2e::Heard::json).find(|it| it["proplet_id"] == id)
        });
        assert_eq!(absent["reason"], reason, "{absent}");
    }
    let complete = operator.wait_for_complete("r-1");
    assert_eq!(judge(&operator, &fleet, &complete).into_iter().collect::<Vec<_>>(), [0]);
    nobody_at_all(&operator);
}

fn nobody_at_all(operator: &e2e::Operator) {
    let fleet = OneHotFleet::named(&["ghost-1".to_owned(), "ghost-2".to_owned()]);
    let mut round = RoundPlan::one_hot(&fleet, "r-ghosts", 1);
    round.timeout_s = 3600;
    operator.start(&round);
    let Ended::Failed(failed) = operator.wait_for_end("r-ghosts") else {
        panic!("a model of nobody")
    };
    assert_eq!(failed["reason"], json!("all_absent"), "{failed}");
}

fn services(stack: &mut Stack) -> Vec<&mut e2e::Process> {
    let mut all = vec![&mut stack.manager, &mut stack.coordinator, &mut stack.model_server];
    all.extend(&mut stack.proplets);
    all
}
