//! A round as a collector of traces sees it: one tree, from the start to the model, whoever does
//! what. And a platform that nobody traces, or whose collector is of no use.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use e2e::{
    BrokerKind, CollectedSpan, Collector, Deadline, Heard, Manners, Operator, Peer, Process,
    RoundPlan, Stack, StackPlan, Turn, eventually, free_port, judge,
};
use protocol::Digest;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Every span of a round with two participants, by its way from the root, and how many there are.
const TREE: &[(&str, usize)] = &[
    ("coordinator:round", 1),
    ("coordinator:round/coordinator:aggregate", 1),
    ("coordinator:round/coordinator:publish model", 1),
    ("coordinator:round/coordinator:publish model/model-server:keep model", 1),
    ("coordinator:round/manager:task", 2),
    ("coordinator:round/manager:task/proplet:task", 2),
    ("coordinator:round/manager:task/proplet:task/proplet:compile", 2),
    ("coordinator:round/manager:task/proplet:task/proplet:fetch module", 2),
    ("coordinator:round/manager:task/proplet:task/proplet:run", 2),
    ("coordinator:round/manager:task/proplet:task/proplet:send update", 2),
    ("coordinator:round/manager:task/proplet:task/proplet:send update/coordinator:update", 2),
];

#[test]
fn a_round_is_one_tree_from_its_start_to_its_model() {
    let _turn = Turn::take();
    let collector = Collector::start(Manners::Takes);
    let plan = StackPlan::new(BrokerKind::Mosquitto, 2)
        .with(ENDPOINT, collector.endpoint())
        .with("OTEL_BSP_SCHEDULE_DELAY", 100);
    let mut stack = plan.start();
    let operator = stack.operator();

    let complete = operator.run(&given(&plan, "r-given", 0));
    judge(&operator, &plan.fleet, &complete);
    let spans = tree(&collector, TRACE, PARENT);
    for span in &spans {
        assert!(!span.failed, "{span:?}");
        assert!(span.began <= span.ended, "{span:?}");
    }
    let round = find(&spans, "coordinator", "round");
    for (key, value) in [
        ("aileron.round.id", "r-given"),
        ("aileron.round.k", "2"),
        ("aileron.round.participants", "2"),
        ("aileron.round.counted", "2"),
        ("aileron.round.outcome", "complete"),
        ("aileron.model.version", "1"),
    ] {
        assert_eq!(round.attributes.get(key).map(String::as_str), Some(value), "{round:?}");
    }
    for span in spans.iter().filter(|span| span.service == "proplet" || span.name == "update") {
        let within = round.began <= span.began && span.began <= round.ended;
        assert!(within, "{span:?} is not in the time of {round:?}");
    }
    let instances: BTreeSet<_> = spans.iter().map(|span| span.instance.as_str()).collect();
    assert_eq!(instances.len(), 5, "{instances:?}");

    // What the collector knows does not change what is made.
    operator.run(&RoundPlan::one_hot(&plan.fleet, "r-own", 1));
    let own = Digest::of(b"r-own").to_string();
    tree(&collector, &own[..32], "");

    let mut failing = RoundPlan::one_hot(&plan.fleet, "r-ghosts", 2);
    failing.participants = vec!["ghost".to_owned()];
    operator.start(&failing);
    operator.wait_for_end("r-ghosts");
    let own = Digest::of(b"r-ghosts").to_string();
    let failed = eventually("the failed round is told of", || {
        collector.trace(&own[..32]).into_iter().find(|span| span.name == "round")
    });
    assert!(failed.failed, "{failed:?}");
    ends_well(&mut stack);
}

#[test]
fn a_collector_that_is_of_no_use_is_in_nobodys_way() {
    let _turn = Turn::take();
    let hanging = Collector::start(Manners::Hangs);
    let refusing = format!("http://127.0.0.1:{}", free_port());
    for endpoint in [hanging.endpoint(), refusing] {
        let plan = StackPlan::new(BrokerKind::Embedded, 2)
            .with(ENDPOINT, &endpoint)
            .with("OTEL_EXPORTER_OTLP_TIMEOUT", 2000)
            .with("OTEL_BSP_SCHEDULE_DELAY", 100);
        let mut stack = plan.start();
        let operator = stack.operator();
        for version in 0..2 {
            let round = RoundPlan::one_hot(&plan.fleet, &format!("r-{version}"), version);
            let complete = operator.run(&round);
            judge(&operator, &plan.fleet, &complete);
            // From the opening to the closing; the guest alone takes 300.
            assert!(complete.duration_ms < 10_000, "{complete:?}");
        }
        let deadline = Deadline::after(Duration::from_secs(30));
        ends_well(&mut stack);
        assert!(deadline.left().is_some(), "{endpoint}: it takes too long to end");
        let log = stack.coordinator.log();
        let said = log.matches("the collector does not take spans").count();
        assert!(said <= 1, "{log}");
        assert!(log.contains("the collector has not taken all spans"), "{log}");
    }
}

/// Where nobody keeps spans, a trace is passed on as it came; and where there is none, not a byte
/// says so.
#[test]
fn what_is_not_traced_says_nothing() {
    let _turn = Turn::take();
    let plan = StackPlan::new(BrokerKind::Embedded, 2);
    let stack = plan.start();
    let operator = stack.operator();
    let watch = Peer::connect(stack.field().port(), &["m/#", "fl/#", "fml/#"]);
    operator.run(&RoundPlan::one_hot(&plan.fleet, "r-plain", 0));
    let said = told(&watch, &operator, "r-plain");
    assert_eq!(said, BTreeMap::new());

    let complete = operator.run(&given(&plan, "r-given", 1));
    judge(&operator, &plan.fleet, &complete);
    let said = told(&watch, &operator, "r-given");
    let starts = said.iter().filter(|(topic, _)| topic.ends_with("/start")).count();
    let updates = said.keys().filter(|topic| topic.contains("/updates")).count();
    assert!(starts >= 2 && updates >= 2, "{said:?}");
    assert!(said.contains_key("fl/models/publish"), "{said:?}");
    assert!(!said.keys().any(|topic| topic.starts_with("fl/models/global")), "{said:?}");

    let mut odd = given(&plan, "r-odd", 2);
    odd.traceparent = Some("00-nonsense-01".to_owned());
    operator.run(&odd);
    stack.coordinator.wait_for_log("traceparent cannot be read");
}

fn given(plan: &StackPlan, id: &str, base: u64) -> RoundPlan {
    let traceparent = Some(format!("00-{TRACE}-{PARENT}-01"));
    RoundPlan { traceparent, ..RoundPlan::one_hot(&plan.fleet, id, base) }
}

/// The topics on which a traceparent was said, with the last one said there, after a round.
fn told(watch: &Peer, operator: &Operator, round: &str) -> BTreeMap<String, String> {
    operator.peer().wait_for(&format!("fl/rounds/{round}/complete"));
    watch.wait(&format!("{round} is complete"), |heard| {
        let topic = format!("fl/rounds/{round}/complete");
        heard.iter().any(|m| m.topic == topic).then(|| {
            let said = |m: &Heard| m.text().contains("traceparent");
            heard.iter().filter(|m| said(m)).map(|m| (m.topic.clone(), m.text())).collect()
        })
    })
}

/// All spans of a round, once they are there, held against what they should be.
#[track_caller]
fn tree(collector: &Collector, trace: &str, above: &str) -> Vec<CollectedSpan> {
    let count: usize = TREE.iter().map(|(_, count)| count).sum();
    let spans = eventually("all spans of the round", || {
        let spans = collector.trace(trace);
        (spans.len() >= count).then_some(spans)
    });
    let by_id: BTreeMap<&str, &CollectedSpan> =
        spans.iter().map(|span| (span.id.as_str(), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "an id stands twice: {spans:#?}");
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for span in &spans {
        let mut way = format!("{}:{}", span.service, span.name);
        let mut at = span;
        while at.parent != above {
            at = by_id.get(at.parent.as_str()).unwrap_or_else(|| {
                panic!("the parent of {at:?} is not there: {spans:#?}");
            });
            way = format!("{}:{}/{way}", at.service, at.name);
        }
        *found.entry(way).or_default() += 1;
    }
    let expected: BTreeMap<String, usize> =
        TREE.iter().map(|(way, count)| ((*way).to_owned(), *count)).collect();
    assert_eq!(found, expected, "{spans:#?}");
    spans
}

#[track_caller]
fn find<'a>(spans: &'a [CollectedSpan], service: &str, name: &str) -> &'a CollectedSpan {
    spans.iter().find(|span| span.service == service && span.name == name).unwrap()
}

#[track_caller]
fn ends_well(stack: &mut Stack) {
    let mut all: Vec<&mut Process> =
        vec![&mut stack.manager, &mut stack.coordinator, &mut stack.model_server];
    all.extend(&mut stack.proplets);
    for process in all {
        let status = process.terminate();
        assert_eq!(status.code(), Some(0), "{}", process.log());
    }
}
