//! The manager dies at any moment, and goes on from what it kept.

use protocol::{Input, message::TaskState};
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
