//! Rounds: started once, absences said at once, updates handed on unread.

use protocol::{AbsentReason, Envelope, Input, RoundId, Topic, message::TaskState};
use serde_json::{Value, json};

use super::world::{World, proplet, round_start};
use crate::{Limits, News, Notice};

#[test]
fn each_participant_gets_one_pinned_task() {
    let mut world = World::new();
    world.create("p1", &[]);
    world.create("p2", &[]);

    world.start_round("r1", &["p1", "p2"]);

    let tasks = world.all();
    let names: Vec<_> = tasks.iter().map(|task| task.spec.name.as_str()).collect();
    assert_eq!(names, ["fl-round-r1-p1", "fl-round-r1-p2"]);
    for (task, name) in tasks.iter().zip(["p1", "p2"]) {
        assert_eq!(task.state, TaskState::Scheduled);
        assert_eq!(task.spec.pinned(), Some(&proplet(name)));
        let env: Vec<_> = task.spec.env.iter().collect();
        let uri = protocol::ModelUri::global(protocol::ModelVersion(0)).to_string();
        let hyperparams = r#"{"lr":0.1,"unknown":[1,null]}"#;
        let expected = [
            ("HYPERPARAMS", hyperparams),
            ("MODEL_URI", uri.as_str()),
            ("PROPLET_ID", name),
            ("ROUND_ID", "r1"),
        ];
        assert_eq!(env, expected);
        assert_eq!(task.id.as_str().len(), 36);
        assert_eq!(world.proplet(name).task_count, 1);
    }
    let starts = world.starts();
    let to: Vec<_> =
        starts.iter().map(|(_, to, attempt)| (to.clone().unwrap(), *attempt)).collect();
    assert_eq!(to, [(proplet("p1"), 1), (proplet("p2"), 1)]);
    assert!(world.absences().is_empty());
}

#[test]
fn the_tasks_of_an_evaluation_know_that_they_are() {
    let mut world = World::new();
    world.create("p1", &[]);
    let mut start = round_start("e1", &["p1"]);
    start["purpose"] = json!("evaluate");
    world.say(Topic::RoundStart, start.to_string());
    let tasks = world.all();
    let env: Vec<_> = tasks[0].spec.env.iter().collect();
    assert!(env.contains(&("PURPOSE", "evaluate")) && env.contains(&("ROUND_ID", "e1")), "{env:?}");
}

#[test]
fn who_cannot_take_part_is_named_at_once_and_again_for_those_who_ask_again() {
    let mut world = World::new();
    world.create("here", &[]);
    world.create("gone", &[]);
    world.last_will("gone");

    world.start_round("r1", &["here", "gone", "never"]);

    let absent: Vec<_> =
        world.absences().into_iter().map(|it| (it.proplet_id, it.reason)).collect();
    let expected =
        [(proplet("gone"), AbsentReason::NotAlive), (proplet("never"), AbsentReason::Unknown)];
    assert_eq!(absent, expected);
    assert_eq!(world.all().len(), 1);
    world.starts();

    world.restart();
    world.start_round("r1", &["here", "gone", "never"]);
    let topic = Topic::RoundAbsent { round: "r1".parse().unwrap() };
    assert_eq!(world.taken(|it| *it == topic).len(), 2);
    assert_eq!(world.all().len(), 1);
    assert!(world.starts().is_empty());
}

#[test]
fn a_manager_that_has_just_connected_waits_for_participants_to_be_heard() {
    for (restarts, resumed) in [(false, false), (true, false), (true, true)] {
        let mut world = World::fresh(Limits::default());
        world.create("here", &[]);
        world.start_round("r1", &["here", "late", "never"]);
        assert_eq!(world.starts().len(), 1, "who is there does not wait for the others");
        assert!(world.absences().is_empty());
        world.live(3.0);
        if restarts {
            world.restart();
            world.step(Input::Connected { resumed });
        }

        world.create("late", &[]);
        world.live(1.0);
        let begun = world.starts();
        assert_eq!(begun.last().unwrap().1, Some(proplet("late")), "{begun:?}");
        assert_eq!(world.all().len(), 2);
        world.live(12.0);

        let absent = world.absences();
        assert_eq!(absent.len(), 1, "{absent:?}");
        assert_eq!(
            (&absent[0].proplet_id, absent[0].reason),
            (&proplet("never"), AbsentReason::Unknown)
        );
        assert!(!world.store.keys().any(|(table, _)| *table == "starts"), "{restarts} {resumed}");
    }
}

#[test]
fn however_many_are_absent_and_however_often_one_asks_few_are_named_again_at_a_time() {
    let names: Vec<_> = (0..2500).map(|n| format!("p{n:04}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut world = World::new();
    world.start_round("r1", &names);
    world.live(1.0);
    assert_eq!(world.absences().len(), 2500);
    let topic = Topic::RoundAbsent { round: "r1".parse().unwrap() };
    let asked_again = |world: &mut World| -> Vec<String> {
        world.start_round("r1", &names);
        let said = world.taken(|it| *it == topic);
        said.iter().map(|it| it.open::<Value>().unwrap()["proplet_id"].to_string()).collect()
    };

    let mut named = vec![];
    for turn in [1000, 1000, 500] {
        let now = asked_again(&mut world);
        assert_eq!(now.len(), turn);
        named.extend(now);
        assert!(asked_again(&mut world).is_empty(), "asked at the same moment");
        world.pass(3.0);
    }

    let all: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
    assert_eq!(named, all, "each in its turn");
    assert_eq!(asked_again(&mut world), all[..1000], "and around again");
}

#[test]
fn the_same_round_with_another_content_changes_nothing() {
    let mut world = World::new();
    world.create("p1", &[]);
    world.start_round("r1", &["p1"]);
    world.starts();

    world.start_round("r1", &["p1", "p2"]);

    assert_eq!(world.all().len(), 1);
    assert!(world.starts().is_empty() && world.absences().is_empty());
    let round: RoundId = "r1".parse().unwrap();
    assert!(world.notices.contains(&Notice::RoundConflict { round }));
}

#[test]
fn a_module_travels_with_the_start_and_is_held_once() {
    let mut world = World::new();
    world.create("p1", &[]);
    world.create("p2", &[]);
    let mut start = round_start("r1", &["p1", "p2"]);
    start["file"] = json!("AGFz\nbQEAAAA=");

    world.say(Topic::RoundStart, start.to_string());

    let files: Vec<_> = world.store.keys().filter(|(table, _)| *table == "files").collect();
    assert_eq!(files.len(), 1);
    for envelope in world.taken(|topic| *topic == Topic::TaskStart) {
        let sent: Value = envelope.open().unwrap();
        assert_eq!(sent["file"], "AGFzbQEAAAA=");
        assert_eq!(sent["image_url"], Value::Null);
    }
}

#[test]
fn a_module_that_is_no_base64_fails_everybody_with_that_reason() {
    let mut world = World::new();
    world.create("p1", &[]);
    let mut start = round_start("r1", &["p1"]);
    start["file"] = json!("not base64!");

    world.say(Topic::RoundStart, start.to_string());

    let absent = world.absences();
    assert_eq!(absent[0].reason, AbsentReason::TaskFailed);
    assert!(absent[0].error.as_ref().unwrap().starts_with("file is not base64"));
    assert!(world.all().is_empty());
}

#[test]
fn an_update_is_handed_on_unread() {
    let mut world = World::new();
    let topic = Topic::RoundUpdate { round: "r9".parse().unwrap(), proplet: "p1".parse().unwrap() };
    let payload = r#"{"round_id":"r9","proplet_id":"p1","update":NaN , "x":1.50}"#;

    world.say(topic, payload);

    let forwarded = world.taken(|topic| *topic == Topic::ForwardedUpdate).remove(0);
    let text = std::str::from_utf8(&forwarded.payload).unwrap();
    assert!(text.starts_with(payload.strip_suffix('}').unwrap()), "{text}");
    assert!(text.ends_with("\"forwarded_at\":\"2026-01-15T08:03:14Z\"}"), "{text}");
    assert!(world.store.is_empty());
}

#[test]
fn a_failed_participant_is_named() {
    let mut world = World::new();
    world.create("p1", &[]);
    world.start_round("r1", &["p1"]);
    let id = world.all()[0].id.clone();

    world.report(&id, "p1", Some(1), json!({"error": "the guest trapped", "code": "trap"}));

    let absent = world.absences().remove(0);
    assert_eq!(absent.round_id.as_str(), "r1");
    assert_eq!(absent.reason, AbsentReason::TaskFailed);
    assert_eq!(absent.error.as_deref(), Some("the guest trapped"));
    assert_eq!(world.view(&id).code.as_deref(), Some("trap"));
}

#[test]
fn rounds_and_their_finished_tasks_are_forgotten_oldest_first() {
    let limits = Limits { rounds_max: 2, federated_kept_max: 1, ..Limits::default() };
    let mut world = World::with(limits);
    world.create("p1", &[]);
    for round in ["r1", "r2", "r3"] {
        world.pass(1.0);
        world.start_round(round, &["p1", "nobody"]);
        let id = world.all().last().unwrap().id.clone();
        world.report(&id, "p1", Some(1), json!({"results": {"update": "published"}}));
    }
    let names: Vec<_> = world.all().iter().map(|task| task.spec.name.clone()).collect();
    assert_eq!(names, ["fl-round-r3-p1"]);
    let kept = |which: &str| {
        let keys = world.store.keys().filter(|(table, _)| *table == which);
        keys.map(|(_, key)| key.clone()).collect::<Vec<_>>()
    };
    assert_eq!(kept("rounds"), ["r2", "r3"]);
    assert_eq!(kept("absent"), ["r2/nobody", "r3/nobody"]);
    assert_eq!(kept("tasks").len(), 1);
}

#[test]
fn what_is_not_for_a_manager_is_refused_by_name() {
    let envelope = Envelope {
        topic: Topic::ModelLatest { line: protocol::ModelLine::default() },
        payload: "{}".into(),
    };
    let why = News::try_from(envelope).unwrap_err().to_string();
    assert!(why.contains("not addressed to this role"), "{why}");

    let create = json!({"proplet_id": "p1", "metadata": {"x": "y".repeat(20_000)}}).to_string();
    let envelope = Envelope { topic: Topic::PropletCreate, payload: create.into() };
    let why = News::try_from(envelope).unwrap_err().to_string();
    assert!(why.contains("metadata of p1 has 20008 bytes"), "{why}");

    let envelope = Envelope { topic: Topic::PropletAlive, payload: vec![b' '; 300_000].into() };
    let why = News::try_from(envelope).unwrap_err().to_string();
    assert!(why.contains("300000 bytes"), "{why}");
}
