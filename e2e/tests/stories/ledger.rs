//! Five rounds with five proplets: the published models alone tell that everybody counts once.

use e2e::{BrokerKind, RoundPlan, StackPlan, Turn, judge, versions_are_whole};

#[test]
fn everybody_counts_once_on_the_embedded_broker() {
    everybody_counts_once(BrokerKind::Embedded);
}

#[test]
fn everybody_counts_once_on_mosquitto() {
    everybody_counts_once(BrokerKind::Mosquitto);
}

fn everybody_counts_once(broker: BrokerKind) {
    let _turn = Turn::take();
    let plan = StackPlan::new(broker, 5);
    let stack = plan.start();
    let operator = stack.operator();
    for base in 0..5 {
        let round = RoundPlan::one_hot(&plan.fleet, &format!("r-{base}"), base);
        let complete = operator.run(&round);
        assert_eq!(complete.model_version.0, base + 1, "{complete:?}");
        assert_eq!(judge(&operator, &plan.fleet, &complete).len(), 5, "{complete:?}");
    }
    versions_are_whole(&operator, 5);
}
