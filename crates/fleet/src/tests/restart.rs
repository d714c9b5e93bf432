//! The manager dies at any moment, and goes on from what it kept.

use protocol::{Input, Machine as _, message::TaskState};
use serde_json::json;

use super::world::{World, federated, proplet};
use crate::Edit;

#[test]
fn proplets_are_believed_to_be_alive_until_their_silence_shows_otherwise() {
    let mut world = World::new();
    world.create("p1", &[]);
    world.create("p2", &[]);
    world.last_will("p2");

    world.pass(3600.0);
    world.restart();
    world.step(Input::Connected { resumed: true });

    assert!(world.proplet("p1").alive && !world.proplet("p2").alive);
    world.start_round("r1", &["p1"]);
    assert_eq!(world.starts().len(), 1);
    world.live(29.0);
    assert!(world.proplet("p1").alive);
    world.live(2.0);
    assert!(!world.proplet("p1").alive);
}

#[test]
fn a_start_that_was_written_but_not_said_is_made_up_for() {
    let mut world = World::new();
    world.create("p1", &[]);
    world.start_round("r1", &["p1"]);
    world.published.clear();

    world.restart();
    world.step(Input::Connected { resumed: true });

    let id = world.all()[0].id.clone();
    assert_eq!(world.starts(), [(id.clone(), Some(proplet("p1")), 1)]);
    world.step(Input::Connected { resumed: true });
    assert!(world.starts().is_empty(), "once is enough");
    world.report(&id, "p1", Some(1), json!({"results": "sent"}));
    assert_eq!(world.state(&id), TaskState::Completed);
}

#[test]
fn a_large_round_is_begun_in_parts_and_a_manager_that_dies_between_them_goes_on() {
    let names: Vec<_> = (0..2_500).map(|n| format!("p{n:04}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut world = World::new();
    names[..2_400].iter().for_each(|name| world.create(name, &[]));

    world.start_round("big", &names);
    let mut sent: Vec<_> = world.starts().into_iter().filter_map(|(_, to, _)| to).collect();
    assert_eq!(sent.len(), 1_000, "the rest waits for the next steps");
    assert!(world.store.keys().any(|(table, _)| *table == "starts"));

    world.restart();
    assert!(world.starts().is_empty(), "nothing is begun without the broker");
    world.step(Input::Connected { resumed: true });
    // What was sent before is sent again, once.
    sent.clear();
    sent.extend(world.starts().into_iter().filter_map(|(_, to, _)| to));
    while world.fleet.deadline().is_some_and(|at| at.since(world.now).as_secs() < 1) {
        world.live(0.02);
        sent.extend(world.starts().into_iter().filter_map(|(_, to, _)| to));
    }

    let expected: Vec<_> = names[..2_400].iter().map(|name| proplet(name)).collect();
    assert!(sent == expected, "everybody once, not {} starts", sent.len());
    assert_eq!(world.absences().len(), 100);
    assert_eq!(world.all().len(), 2_400);
    assert!(world.store.keys().all(|(table, _)| *table != "starts"));
}

#[test]
fn a_waiting_task_still_waits_and_a_finished_one_is_still_finished() {
    let mut world = World::new();
    world.create("p1", &[]);
    let waiting = world.make("waiting", federated("r1", "p1"));
    let file = Some(Some(bytes::Bytes::from_static(b"\0asm")));
    let done = world.make("done", Edit { file, ..Edit::default() });
    world.start(&waiting);
    world.start(&done);
    world.report(&done, "p1", Some(1), json!({"results": [1.5]}));
    world.last_will("p1");
    world.starts();
    let before = (world.view(&waiting), world.view(&done));

    world.restart();
    world.step(Input::Connected { resumed: false });

    assert_eq!((world.view(&waiting), world.view(&done)), before);
    world.pass(3.0);
    world.create("p1", &[]);
    assert_eq!(world.starts(), [(waiting, Some(proplet("p1")), 2)]);
    world.start(&done);
    let sent = world.published.last().unwrap().open::<serde_json::Value>().unwrap();
    assert_eq!(sent["file"], "AGFzbQ==");
}
