//! Tasks as an operator sees them: made, started, stopped, finished, refused.

use std::collections::BTreeMap;

use protocol::{Envelope, TaskId, Topic, message::TaskState};
use serde_json::{Value, json};

use super::world::{World, pinned, proplet, task};
use crate::{Answer, Ask, Edit, Limits, News, Page, Refusal, RefusalKind, TaskFilter, TaskView};

#[test]
fn a_task_goes_its_way_and_its_end_does_not_change() {
    let mut world = World::new();
    world.create("p1", &[]);
    world.create("p2", &[]);
    let id = world.make("job", Edit::default());
    assert_eq!(world.state(&id), TaskState::Pending);

    world.start(&id);
    assert_eq!(world.state(&id), TaskState::Scheduled);
    world.pass(1.0);
    world.alive("p1", &[(&id, 1)]);
    assert_eq!(world.state(&id), TaskState::Running);
    let running_since = world.now;
    world.report(&id, "p2", Some(1), json!({"results": "forged"}));
    world.report(&id, "p1", Some(7), json!({"results": "of another run"}));
    assert_eq!(world.state(&id), TaskState::Running);
    world.pass(1.0);
    world.report(&id, "p1", Some(1), json!({"results": {"answer": 42}}));

    let view = world.view(&id);
    assert_eq!(view.state, TaskState::Completed);
    assert_eq!(view.results.as_ref().unwrap().as_str(), r#"{"answer":42}"#);
    assert_eq!((view.start_time, view.finish_time), (Some(running_since), Some(world.now)));
    world.pass(5.0);
    world.report(&id, "p1", Some(1), json!({"error": "late and wrong"}));
    assert_eq!(world.view(&id), view);
    assert_eq!(world.proplet("p1").task_count, 0);
}

#[test]
fn a_finished_task_starts_again_as_a_new_attempt_with_nothing_left_of_the_old() {
    let mut world = World::new();
    world.create("p1", &[]);
    let id = world.make("job", Edit::default());
    world.start(&id);
    world.report(&id, "p1", None, json!({"error": "no luck"}));
    assert_eq!(world.state(&id), TaskState::Failed);

    world.start(&id);

    let view = world.view(&id);
    assert_eq!((view.state, view.attempt), (TaskState::Scheduled, 2));
    assert_eq!((view.results, view.error, view.finish_time), (None, None, None));
    world.report(&id, "p1", Some(1), json!({"error": "no luck, again"}));
    assert_eq!(world.state(&id), TaskState::Scheduled);
    world.report(&id, "p1", Some(2), json!({"results": null}));
    assert_eq!(world.view(&id).results.unwrap().as_str(), "null");
}

#[test]
fn what_cannot_be_done_now_is_refused_with_the_state() {
    let mut world = World::new();
    let id = world.make("job", pinned("p1"));
    let refused = |world: &mut World, ask: Ask| {
        let why = world.ask(ask).unwrap_err();
        assert_eq!(why.kind(), RefusalKind::Conflict);
        why.to_string()
    };
    assert_eq!(
        refused(&mut world, Ask::StopTask(id.clone())),
        "task job is Pending: it cannot stop"
    );
    let start = Ask::StartTask(id.clone());
    let unknown = "proplet p1, to which the task is pinned, is unknown";
    assert_eq!(refused(&mut world, start.clone()), unknown);
    world.create("p1", &[]);
    world.last_will("p1");
    let offline = "proplet p1, to which the task is pinned, is not alive";
    assert_eq!(refused(&mut world, start.clone()), offline);
    world.create("p1", &[]);
    world.start(&id);
    assert_eq!(refused(&mut world, start), "task job is Scheduled: it cannot start");
    let delete = Ask::DeleteTask(id.clone());
    assert_eq!(refused(&mut world, delete), "task job is Scheduled: it cannot be deleted");
    let edit = Ask::EditTask { id, edit: Box::default() };
    assert_eq!(refused(&mut world, edit), "task job is Scheduled: it cannot be changed");
    let forget = Ask::ForgetProplet(proplet("p1"));
    assert_eq!(refused(&mut world, forget), "proplet p1 is alive");
    assert_eq!(world.ask(Ask::StartTask(task("nope"))).unwrap_err().kind(), RefusalKind::NotFound);
}

#[test]
fn the_least_busy_gets_the_next() {
    let mut world = World::new();
    assert_eq!(
        {
            let id = world.make("early", Edit::default());
            world.ask(Ask::StartTask(id))
        },
        Err(Refusal::NoneAlive)
    );
    for name in ["b", "a", "c"] {
        world.create(name, &[]);
    }
    for n in 0..6 {
        let id = world.make(&format!("t{n}"), Edit::default());
        world.start(&id);
    }
    let to: Vec<_> = world.starts().into_iter().map(|(_, to, _)| to.unwrap()).collect();
    assert_eq!(to, ["a", "b", "c", "a", "b", "c"].map(proplet));
}

#[test]
fn a_broadcast_runs_everywhere_and_ends_when_all_have_reported() {
    let mut world = World::new();
    world.create("p1", &[]);
    world.create("p2", &[]);
    world.create_with("p3", json!({"directed": true}), Some(&[]));
    let id = world.make("all", Edit { broadcast: Some(true), ..Edit::default() });

    world.start(&id);

    let topics: Vec<_> = world.published.iter().map(|it| it.topic.clone()).collect();
    assert_eq!(topics, [Topic::DirectStart { proplet: proplet("p3") }, Topic::TaskStart]);
    let to: Vec<_> = world.starts().into_iter().map(|(_, to, _)| to).collect();
    assert_eq!(to, [Some(proplet("p3")), None]);
    world.report(&id, "p1", Some(1), json!({"results": 1}));
    world.report(&id, "p1", Some(1), json!({"results": 100}));
    world.report(&id, "p2", Some(1), json!({"results": 2}));
    assert_eq!(world.state(&id), TaskState::Running);
    assert_eq!((world.proplet("p1").task_count, world.proplet("p3").task_count), (0, 1));
    world.report(&id, "p3", Some(1), json!({"results": "x\"y"}));
    let view = world.view(&id);
    assert_eq!(view.state, TaskState::Completed);
    let results: Value = serde_json::from_str(view.results.unwrap().as_str()).unwrap();
    assert_eq!(results, json!({"p1": 1, "p2": 2, "p3": "x\"y"}));

    world.start(&id);
    world.report(&id, "p1", Some(2), json!({"error": "broken"}));
    world.last_will("p2");
    world.ask(Ask::StopTask(id.clone())).unwrap();
    assert_eq!(world.stops().len(), 1);
    let view = world.view(&id);
    assert_eq!(view.state, TaskState::Failed);
    assert_eq!(
        view.error.as_deref(),
        Some("p1: broken; p2: p2 is offline; p3: stopped by an operator")
    );
}

#[test]
fn a_stop_is_final_and_late_words_do_not_matter() {
    let mut world = World::new();
    world.create_with("p1", json!({"directed": true}), Some(&[]));
    let id = world.make("job", pinned("p1"));
    world.start(&id);

    world.ask(Ask::StopTask(id.clone())).unwrap();

    let topic = Topic::DirectStop { proplet: proplet("p1") };
    assert_eq!(world.taken(|it| *it == topic).len(), 1);
    let view = world.view(&id);
    assert_eq!((view.state, view.waits), (TaskState::Interrupted, false));
    world.report(&id, "p1", Some(1), json!({"error": "cancelled", "code": "cancelled"}));
    assert_eq!(world.view(&id), view);
    assert!(world.ask(Ask::StopTask(id)).is_err());
}

#[test]
fn a_task_cancelled_on_the_device_does_not_come_back() {
    let mut world = World::new();
    world.create("p1", &[]);
    let id = world.make("job", pinned("p1"));
    world.start(&id);
    world.report(&id, "p1", Some(1), json!({"error": "by the owner", "code": "cancelled"}));
    let view = world.view(&id);
    assert_eq!((view.state, view.waits), (TaskState::Interrupted, false));
    assert_eq!(view.error.as_deref(), Some("by the owner"));
}

#[test]
fn wordings_are_checked() {
    let mut world = World::new();
    let refused = |world: &mut World, edit: Edit| {
        let why = world.ask(Ask::CreateTask { id: task("x"), edit: Box::new(edit) }).unwrap_err();
        (why.kind(), why.to_string())
    };
    let named = |edit: Edit| Edit { name: Some("n".into()), ..edit };
    let env = |name: &str, value: &str| {
        named(Edit { env: Some(BTreeMap::from([(name.into(), value.into())])), ..Edit::default() })
    };
    let bad = RefusalKind::BadInput;
    assert_eq!(refused(&mut world, Edit::default()), (bad, "name is missing".into()));
    let why = refused(&mut world, env("ROUND_ID", "a/b"));
    assert_eq!(why.0, bad);
    assert!(why.1.contains("env ROUND_ID \"a/b\""), "{}", why.1);
    assert_eq!(refused(&mut world, env("A=B", "x")).0, bad);
    assert_eq!(refused(&mut world, env("A", "x\0")).0, bad);
    assert_eq!(refused(&mut world, env("A", &"x".repeat(300_000))).0, bad);
    let both = named(Edit { broadcast: Some(true), ..pinned("p1") });
    let why = "broadcast and proplet_id p1 exclude each other";
    assert_eq!(refused(&mut world, both), (bad, why.into()));
    let late = named(Edit { state: Some(TaskState::Running), ..Edit::default() });
    assert_eq!(refused(&mut world, late).0, RefusalKind::Conflict);
    assert!(world.all().is_empty() && world.store.is_empty());
}

#[test]
fn edits_change_what_they_name_and_files_go_with_their_last_task() {
    let mut world = World::new();
    let file = |byte: u8| Some(Some(bytes::Bytes::from(vec![byte; 10])));
    let edit = || Edit { file: file(1), cli_args: Some(vec!["a".into()]), ..Edit::default() };
    let one = world.make("one", edit());
    let two = world.make("two", edit());
    let kept = |world: &World| world.store.keys().filter(|(table, _)| *table == "files").count();
    assert_eq!(kept(&world), 1);

    world.pass(1.0);
    let change = Edit { file: file(2), retries: Some(3), ..Edit::default() };
    world.ask(Ask::EditTask { id: one.clone(), edit: Box::new(change) }).unwrap();
    assert_eq!(kept(&world), 2);
    let view = world.view(&one);
    assert_eq!(view.spec.cli_args, ["a"]);
    assert_eq!((view.spec.retries, view.updated_at), (3, world.now));
    world.ask(Ask::DeleteTask(two)).unwrap();
    assert_eq!(kept(&world), 1);
    let bare = Edit { file: Some(None), ..Edit::default() };
    world.ask(Ask::EditTask { id: one, edit: Box::new(bare) }).unwrap();
    assert_eq!(kept(&world), 0);
}

#[test]
fn there_is_only_so_much_room() {
    let limits = Limits {
        tasks_max: 1,
        files_len_max: 8,
        results_len_max: 16,
        proplets_max: 1,
        ..Limits::default()
    };
    let mut world = World::with(limits);
    world.create("p1", &[]);
    world.create("p2", &[]);
    assert_eq!(world.ask(Ask::Proplet(proplet("p2"))), Err(Refusal::NoProplet(proplet("p2"))));
    let id = world.make("one", Edit::default());
    let edit = Box::new(Edit { name: Some("two".into()), ..Edit::default() });
    let full = world.ask(Ask::CreateTask { id: task("two"), edit });
    assert_eq!(full, Err(Refusal::TasksFull { max: 1 }));
    let why = world.ask(Ask::Upload { id: id.clone(), file: vec![0; 9].into() }).unwrap_err();
    assert_eq!(why.kind(), RefusalKind::TooLarge);

    world.start(&id);
    world.report(&id, "p1", Some(1), json!({"results": "x".repeat(100)}));
    let view = world.view(&id);
    assert_eq!(view.state, TaskState::Failed);
    let error = "results have 102 bytes, at most 16 are kept of a task";
    assert_eq!(view.error.as_deref(), Some(error));

    world.start_round("r1", &["p1"]);
    assert_eq!(world.absences()[0].error.as_deref(), Some("1 tasks are held, no more"));
}

#[test]
fn a_result_stays_closed_until_its_sender_has_a_say_and_its_length_is_known() {
    let mut world = World::with(Limits { results_len_max: 1000, ..Limits::default() });
    world.create("p1", &[]);
    let says = |id: &TaskId, results: &str| -> Envelope {
        let (topic, attempt) = (Topic::TaskResults, 1);
        let text = format!(
            r#"{{"task_id":"{id}","proplet_id":"p1","attempt":{attempt},"results": {results}}}"#
        );
        Envelope { topic, payload: text.into() }
    };
    // Nobody who opens it can say how long it is: too deep for that.
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let letter = says(&task("job"), &deep(100_000));
    let held = letter.payload.as_ptr_range();
    let News::TaskResults(news) = News::try_from(letter.clone()).unwrap() else { panic!() };
    let results = news.results.unwrap();
    assert!(held.contains(&results.as_ptr()) && results.len() == 200_000, "not even copied");

    let mut ends = |results: &str| -> TaskView {
        let id = world.make("job", Edit::default());
        world.start(&id);
        let letter = says(&id, results);
        world.say(letter.topic, letter.payload);
        let view = world.view(&id);
        world.ask(Ask::DeleteTask(id)).unwrap();
        view
    };
    let view = ends(&deep(100_000));
    assert_eq!((view.state, view.code.as_deref()), (TaskState::Failed, Some("result_too_large")));
    let error = "results have 200000 bytes, at most 1000 are kept of a task";
    assert_eq!(view.error.as_deref(), Some(error));
    let view = ends(&deep(101));
    assert_eq!((view.state, view.code.as_deref()), (TaskState::Failed, Some("result_too_deep")));
    let error = "results are nested more than 100 deep";
    assert_eq!(view.error.as_deref(), Some(error));
    let brackets = r#"{"text": "[[\"[[\\", "a": [1.50, 1e999]}"#.replace(' ', &" ".repeat(20));
    for good in [&deep(100), &brackets, &format!("\"{}\"", "[".repeat(500))] {
        let view = ends(good);
        assert_eq!(view.state, TaskState::Completed, "{:?}", view.error);
        assert_eq!(view.results.unwrap().as_str(), good, "as it was said");
    }
    assert_eq!(ends("null").results.unwrap().as_str(), "null");
}

#[test]
fn lists_are_filtered_and_paged_in_the_order_of_creation() {
    let mut world = World::new();
    world.create("p1", &[]);
    for n in 0..5 {
        world.make(&format!("t{}", 9 - n), if n == 3 { pinned("p1") } else { Edit::default() });
    }
    world.start(&task("t8"));
    let listed = |filter: TaskFilter, offset: usize, limit: usize| {
        let ask = Ask::Tasks { page: Page { offset, limit }, filter };
        let Some(Ok(Answer::Tasks(page))) = world.fleet.look(&ask) else { panic!("no page") };
        let names: Vec<_> = page.items.iter().map(|it| it.spec.name.clone()).collect();
        (page.total, names.join(" "))
    };
    let all = TaskFilter::default;
    assert_eq!(listed(all(), 0, 100), (5, "t9 t8 t7 t6 t5".into()));
    assert_eq!(listed(all(), 1, 2), (5, "t8 t7".into()));
    assert_eq!(listed(all(), 9, 2), (5, String::new()));
    let scheduled = TaskFilter { state: Some(TaskState::Scheduled), ..all() };
    assert_eq!(listed(scheduled, 0, 10), (1, "t8".into()));
    let on = TaskFilter { proplet: Some(proplet("p1")), ..all() };
    assert_eq!(listed(on, 0, 10), (2, "t8 t6".into()));
    let named = TaskFilter { name: Some("t5".into()), ..all() };
    assert_eq!(listed(named, 0, 10), (1, "t5".into()));
}
