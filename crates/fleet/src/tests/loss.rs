//! Proplets that die, blink, and miss what was said to them.

use protocol::{Input, Machine as _, message::TaskState};
use serde_json::json;

use super::world::{World, federated, pinned, proplet, task};
use crate::Edit;

fn running(world: &mut World, edit: Edit) -> protocol::TaskId {
    let id = world.make("job", edit);
    world.start(&id);
    world.alive("p1", &[(&id, 1)]);
    assert_eq!(world.state(&id), TaskState::Running);
    world.starts();
    id
}

#[test]
fn a_pinned_task_runs_again_where_it_was_and_only_as_often_as_its_policy_says() {
    let mut world = World::new();
    world.create("p1", &[]);
    world.create("p2", &[]);
    let id = running(&mut world, federated("r1", "p1"));

    world.last_will("p1");
    let view = world.view(&id);
    assert_eq!((view.state, view.waits, view.retries_left), (TaskState::Interrupted, true, 1));
    assert_eq!(view.finish_time, None);
    assert_eq!(world.proplet("p1").task_count, 0);
    world.live(20.0);
    assert!(world.starts().is_empty(), "there is nowhere else to go");

    world.create("p1", &[]);
    assert_eq!(world.starts(), [(id.clone(), Some(proplet("p1")), 2)]);
    world.alive("p1", &[(&id, 2)]);
    assert_eq!(world.state(&id), TaskState::Running);
    assert!(world.absences().is_empty());

    world.last_will("p1");
    let view = world.view(&id);
    assert_eq!((view.state, view.waits), (TaskState::Interrupted, false));
    assert!(view.finish_time.is_some());
    assert_eq!(world.absences()[0].error.as_deref(), Some("p1 is offline"));
    world.create("p1", &[]);
    assert!(world.starts().is_empty());
}

#[test]
fn a_proplet_that_only_blinked_keeps_its_task() {
    let mut world = World::new();
    world.create("p1", &[]);
    let id = running(&mut world, pinned("p1"));

    world.last_will("p1");
    world.create("p1", &[(&id, 1)]);

    let view = world.view(&id);
    assert_eq!((view.state, view.attempt, view.retries_left), (TaskState::Running, 1, 1));
    assert!(world.starts().is_empty() && world.stops().is_empty());
}

#[test]
fn a_result_that_comes_after_the_loss_still_counts() {
    let mut world = World::new();
    world.create("p1", &[]);
    let id = running(&mut world, pinned("p1"));

    world.last_will("p1");
    world.report(&id, "p1", Some(1), json!({"results": 5}));

    assert_eq!(world.state(&id), TaskState::Completed);
    world.create("p1", &[]);
    assert!(world.starts().is_empty());
}

#[test]
fn silence_is_loss_and_another_takes_over_and_the_first_is_called_back() {
    let mut world = World::new();
    world.create("p1", &[]);
    let id = running(&mut world, Edit::default());
    for _ in 0..2 {
        world.live(12.0);
        world.create("p2", &[]);
    }

    world.live(10.0);

    assert!(!world.proplet("p1").alive);
    assert_eq!(world.starts(), [(id.clone(), Some(proplet("p2")), 2)]);
    world.alive("p1", &[(&id, 1)]);
    let stops = world.stops();
    assert_eq!(stops.len(), 1);
    assert_eq!((&stops[0].id, stops[0].proplet_id.as_ref()), (&id, Some(&proplet("p1"))));
    world.report(&id, "p1", Some(1), json!({"results": "late"}));
    assert_eq!(world.state(&id), TaskState::Scheduled);
}

#[test]
fn silence_while_the_broker_is_away_says_nothing() {
    let mut world = World::new();
    world.create("p1", &[]);
    let edit = Edit { retries: Some(0), ..federated("r1", "p1") };
    let id = running(&mut world, edit);

    world.live(20.0);
    world.fleet.disconnected();
    assert_eq!(world.fleet_deadline(), None, "there is nothing to wait for");
    for _ in 0..100 {
        world.live(1.0);
        world.step(Input::Tick);
    }
    assert!(world.proplet("p1").alive);
    assert_eq!(world.state(&id), TaskState::Running);

    world.step(Input::Connected { resumed: true });
    world.live(29.0);
    assert!(world.proplet("p1").alive, "it has not had the time to say anything");
    world.alive("p1", &[(&id, 1)]);
    assert!(world.stops().is_empty() && world.absences().is_empty());
    assert_eq!(world.state(&id), TaskState::Running);

    world.live(31.0);
    assert!(!world.proplet("p1").alive, "silence counts again");
    assert_eq!(world.state(&id), TaskState::Interrupted);
}

#[test]
fn what_waits_to_run_again_does_not_wait_for_the_broker() {
    let mut world = World::new();
    world.create("p1", &[]);
    let id = running(&mut world, pinned("p1"));
    world.report(&id, "p1", Some(1), json!({"error": "busy", "code": "interrupted"}));

    world.fleet.disconnected();
    world.live(2.0);

    assert_eq!(world.starts(), [(id, Some(proplet("p1")), 2)]);
}

#[test]
fn a_proplet_that_gives_a_task_back_before_it_goes_uses_up_one_retry_not_two() {
    let mut world = World::new();
    world.create("p1", &[]);
    let id = running(&mut world, pinned("p1"));

    world.report(&id, "p1", Some(1), json!({"error": "shutting down", "code": "interrupted"}));
    world.live(0.5);
    world.last_will("p1");
    world.live(30.0);
    assert!(world.starts().is_empty());
    world.create("p1", &[]);

    assert_eq!(world.starts(), [(id.clone(), Some(proplet("p1")), 2)]);
    assert_eq!(world.view(&id).retries_left, 0);
}

#[test]
fn a_proplet_that_gives_a_task_back_and_stays_gets_it_again_after_a_pause() {
    let mut world = World::new();
    world.create("p1", &[]);
    let id = running(&mut world, pinned("p1"));

    world.report(&id, "p1", Some(1), json!({"error": "busy", "code": "interrupted"}));
    world.live(1.9);
    assert!(world.starts().is_empty());
    world.live(0.2);
    assert_eq!(world.starts(), [(id, Some(proplet("p1")), 2)]);
}

#[test]
fn a_start_that_did_not_arrive_is_sent_again_with_growing_pauses() {
    let mut world = World::new();
    world.create("p1", &[]);
    let id = world.make("job", Edit::default());
    world.start(&id);
    world.starts();

    world.pass(1.0);
    world.alive("p1", &[]);
    assert!(world.starts().is_empty(), "it may still be on its way");
    let mut sent = vec![];
    for second in 2..40 {
        world.pass(1.0);
        world.alive("p1", &[]);
        if !world.starts().is_empty() {
            sent.push(second);
        }
    }
    assert_eq!(sent, [2, 6, 14, 30]);
    assert_eq!(world.view(&id).attempt, 1);
    world.create("p1", &[(&id, 1)]);
    assert_eq!(world.state(&id), TaskState::Running);
}

#[test]
fn a_start_that_the_broker_forgot_goes_out_again_as_soon_as_the_proplet_is_back() {
    let mut world = World::new();
    world.create("p1", &[]);
    let id = world.make("job", Edit::default());
    world.start(&id);
    world.starts();

    world.pass(0.2);
    world.create("p1", &[]);

    assert_eq!(world.starts(), [(id, Some(proplet("p1")), 1)]);
}

#[test]
fn a_start_that_is_never_taken_ends_the_attempt() {
    let mut world = World::new();
    world.create("p1", &[]);
    let id = world.make("job", Edit { retries: Some(0), ..Edit::default() });
    world.start(&id);
    for _ in 0..60 {
        world.live(15.0);
        world.alive("p1", &[]);
    }
    let view = world.view(&id);
    assert_eq!(view.state, TaskState::Interrupted);
    assert_eq!(view.error.as_deref(), Some("p1 did not take it after 10 repetitions"));
}

#[test]
fn a_result_that_got_lost_comes_with_a_repeated_start() {
    let mut world = World::new();
    world.create("p1", &[]);
    let id = running(&mut world, pinned("p1"));
    world.pass(10.0);

    world.alive("p1", &[]);

    assert_eq!(world.starts(), [(id.clone(), Some(proplet("p1")), 1)]);
    assert_eq!(world.state(&id), TaskState::Running);
}

#[test]
fn what_nobody_asked_for_is_stopped() {
    let mut world = World::new();
    world.create("p1", &[(&task("whatever"), 3)]);
    assert_eq!(world.stops()[0].id, task("whatever"));

    let many: Vec<_> = (0..1000).map(|n| task(&format!("t{n}"))).collect();
    let held: Vec<_> = many.iter().map(|id| (id, 1)).collect();
    world.alive("p1", &held);
    assert_eq!(world.stops().len(), 256);
}

#[test]
fn a_stop_that_got_lost_is_said_again() {
    let mut world = World::new();
    world.create("p1", &[]);
    let id = running(&mut world, pinned("p1"));
    world.ask(crate::Ask::StopTask(id.clone())).unwrap();
    assert_eq!(world.stops().len(), 1);

    world.pass(10.0);
    world.alive("p1", &[(&id, 1)]);
    assert_eq!(world.stops().len(), 1);
    assert_eq!(world.state(&id), TaskState::Interrupted);
}

#[test]
fn a_proplet_that_does_not_say_what_it_holds_is_sent_the_unconfirmed_again_when_it_reconnects() {
    let mut world = World::new();
    world.create_with("p1", json!({}), None);
    let id = world.make("job", pinned("p1"));
    world.start(&id);
    world.starts();
    world.pass(3.0);

    world.create_with("p1", json!({}), None);
    assert_eq!(world.starts(), [(id.clone(), Some(proplet("p1")), 1)]);

    world.report(&id, "p1", None, json!({"results": [1, 2]}));
    assert_eq!(world.state(&id), TaskState::Completed);
}
