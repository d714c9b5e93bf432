//! Who is there: introductions, signs of life, silence, measurements.

use protocol::{
    Input, Topic,
    message::{PropletMetrics, TaskMetrics, TaskState},
};
use serde_json::json;

use super::world::{World, pinned, proplet};
use crate::{Answer, Ask, Edit, Page};

#[test]
fn a_proplet_is_alive_as_long_as_it_says_so() {
    let mut world = World::new();
    world.create_with("p1", json!({"name": "Kitchen", "gpu": false}), Some(&[]));
    let view = world.proplet("p1");
    assert_eq!((view.alive, view.name.as_str()), (true, "Kitchen"));
    assert_eq!(view.metadata["gpu"], json!(false));
    assert_eq!(view.last_alive_at, Some(world.now));

    world.live(29.0);
    world.alive("p1", &[]);
    world.live(29.0);
    assert!(world.proplet("p1").alive);
    world.live(2.0);
    assert!(!world.proplet("p1").alive);
    world.alive("p1", &[]);
    assert!(world.proplet("p1").alive);
    world.last_will("p1");
    assert!(!world.proplet("p1").alive);
    assert_eq!(world.fleet_deadline(), None);

    world.ask(Ask::ForgetProplet(proplet("p1"))).unwrap();
    assert!(world.ask(Ask::Proplet(proplet("p1"))).is_err());
    assert!(world.store.is_empty());
}

#[test]
fn a_manager_that_slept_does_not_blame_those_it_did_not_hear() {
    let mut world = World::new();
    world.create("p1", &[]);
    world.pass(3600.0);
    world.step(Input::Tick);
    assert!(world.proplet("p1").alive);
    world.live(31.0);
    assert!(!world.proplet("p1").alive);
}

#[test]
fn signs_of_life_are_not_written_down_every_time() {
    let mut world = World::new();
    world.create("p1", &[]);
    world.store.clear();
    for _ in 0..5 {
        world.live(10.0);
        world.alive("p1", &[]);
    }
    assert!(world.store.is_empty());
    world.live(10.0);
    world.alive("p1", &[]);
    assert_eq!(world.store.len(), 1);
}

#[test]
fn measurements_are_kept_of_the_last_hundred_and_only_from_where_the_task_runs() {
    let mut world = World::new();
    world.create("p1", &[]);
    let id = world.make("job", Edit::default());
    world.start(&id);
    let measured = |on: &str, wall_ms: f64| TaskMetrics {
        task_id: id.clone(),
        proplet_id: proplet(on),
        attempt: 1,
        wall_ms,
        cpu_ms: 1.0,
        memory_bytes: 65536,
        fuel: None,
        module: "disk".into(),
        compile_ms: 0.1,
        start_us: 10.0,
    };
    world.hear(&measured("stranger", 0.0));
    assert_eq!(world.state(&id), TaskState::Scheduled);
    for n in 0..120 {
        world.hear(&measured("p1", f64::from(n)));
    }
    assert_eq!(world.state(&id), TaskState::Running);
    let ask = Ask::Metrics { id: id.clone(), page: Page { offset: 98, limit: 10 } };
    let Some(Ok(Answer::Metrics(page))) = world.fleet.look(&ask) else { panic!("no page") };
    assert_eq!(page.total, 100);
    let walls: Vec<_> = page.items.iter().map(|it| it.wall_ms).collect();
    assert_eq!(walls, [118.0, 119.0]);

    let own = PropletMetrics {
        proplet_id: proplet("p1"),
        namespace: String::new(),
        cpu_percent: 12.5,
        memory_bytes: 1 << 20,
        uptime_s: 3,
    };
    world.hear(&own);
    assert_eq!(world.proplet("p1").metrics, Some(own));
}

#[test]
fn a_task_that_waits_for_a_removed_proplet_waits_no_longer() {
    let mut world = World::new();
    world.create("p1", &[]);
    let id = world.make("job", pinned("p1"));
    world.start(&id);
    world.last_will("p1");
    assert!(world.view(&id).waits);
    world.ask(Ask::ForgetProplet(proplet("p1"))).unwrap();
    let view = world.view(&id);
    assert_eq!((view.state, view.waits), (TaskState::Interrupted, false));
    assert_eq!(view.error.as_deref(), Some("proplet p1 was removed"));
}

#[test]
fn ten_thousand_proplets_cost_no_more_a_message_than_ten() {
    let mut world = World::new();
    for n in 0..10_000 {
        world.create(&format!("p{n}"), &[]);
    }
    world.pass(10.0);
    for n in 0..10_000 {
        world.alive(&format!("p{n}"), &[]);
    }
    let named: Vec<_> = (0..10_000).map(|n| format!("p{n}")).collect();
    let names: Vec<_> = named.iter().map(String::as_str).collect();
    world.start_round("big", &names);
    world.live(1.0);
    assert_eq!(world.starts().len(), 10_000);
    assert!(world.taken(|topic| matches!(topic, Topic::TaskStop)).is_empty());
    for task in world.all() {
        let on = task.sent_to[0].as_str().to_owned();
        world.report(&task.id, &on, Some(1), json!({"results": 1}));
    }
    assert!(world.all().iter().all(|task| task.state == TaskState::Completed));
}
