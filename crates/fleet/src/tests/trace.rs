//! Traces: handed on as they were given, or made of a round's own; else nothing is said of any.

use protocol::{SpanId, Topic, TraceField, Traceparent, message::TaskState};
use serde_json::json;

use super::world::{World, proplet, round_start};
use crate::{Limits, Notice, TracedTask};

const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What the start of p1's task says of its trace, as a field and in its environment.
fn told(limits: Limits, given: Option<&str>) -> (Option<Traceparent>, World) {
    let mut world = World::with(limits);
    world.create("p1", &[]);
    let mut start = round_start("r1", &["p1"]);
    if let Some(given) = given {
        start["traceparent"] = json!(given);
        start["env"] = json!({"TRACEPARENT": "00-another-one-01"});
    }
    world.say(Topic::RoundStart, start.to_string());
    let sent = world.taken(|topic| matches!(topic, Topic::TaskStart | Topic::DirectStart { .. }));
    let payload = String::from_utf8(sent[0].payload.to_vec()).unwrap();
    let start: protocol::message::TaskStart = sent[0].open().unwrap();
    let parent = start.parent();
    assert_eq!(start.traceparent, parent.map(TraceField::Parent));
    let env = start.env.get("TRACEPARENT").cloned();
    if given != Some("bad") {
        assert_eq!(env, parent.map(|parent| parent.to_string()), "{payload}");
        assert_eq!(payload.to_lowercase().contains("traceparent"), parent.is_some(), "{payload}");
    }
    (parent, world)
}

fn traced(world: &World) -> Vec<(TaskState, TracedTask)> {
    let traced = world.notices.iter().filter_map(|notice| {
        let Notice::Task { to, traced: Some(traced), .. } = notice else { return None };
        Some((*to, TracedTask::clone(traced)))
    });
    traced.collect()
}

#[test]
fn where_nobody_keeps_spans_a_trace_is_passed_on_and_none_is_made() {
    let (told_nothing, world) = told(Limits::default(), None);
    assert_eq!((told_nothing, traced(&world)), (None, vec![]));
    let (passed, world) = told(Limits::default(), Some(GIVEN));
    assert_eq!(passed.unwrap().to_string(), GIVEN);
    assert_eq!(traced(&world), []);
    assert_eq!(told(Limits::default(), Some("bad")).0, None);
}

#[test]
fn where_spans_are_kept_each_task_has_one_of_its_own() {
    let limits = Limits { keeps_spans: true, ..Limits::default() };
    let round = "r1".parse().unwrap();
    let own = SpanId::of_task(&round, &proplet("p1"));
    for given in [None, Some(GIVEN), Some("bad")] {
        let (parent, world) = told(limits, given);
        let given = given.and_then(|given| given.parse().ok());
        let expected = Traceparent::of_round(&round, given).with_span(own);
        assert_eq!(parent, Some(expected));
        let task = TracedTask { round: round.clone(), proplet: proplet("p1"), span: expected };
        assert_eq!(traced(&world), [(TaskState::Scheduled, task)]);
    }
}

/// Whether a trace is kept is decided where it begins.
#[test]
fn an_unsampled_trace_stays_one() {
    let limits = Limits { keeps_spans: true, ..Limits::default() };
    let unsampled = GIVEN.replace("-01", "-00");
    let (parent, _) = told(limits, Some(&unsampled));
    assert!(!parent.unwrap().is_sampled());
}

/// It is the same one after a restart.
#[test]
fn a_start_that_is_sent_again_says_the_same() {
    let limits = Limits { keeps_spans: true, ..Limits::default() };
    let (parent, mut world) = told(limits, Some(GIVEN));
    world.restart();
    let env = &world.all()[0].spec.env;
    assert_eq!(env.get("TRACEPARENT"), parent.map(|parent| parent.to_string()).as_deref());
}
