//! Images: a tag means one thing to all tasks of a round, whatever happens to the tag or to us.

use protocol::{
    AbsentReason, Digest, Input, TaskId, Topic,
    message::{TaskStart, TaskState},
};
use serde_json::json;

use super::world::{Asked, World, pinned, proplet, round_start, task};
use crate::{Ask, Delivery, Edit, Found, Limits, Part, Refusal, Report, Seeker, Wanted};

const TAG: &str = "oci://registry.example/fl-client:1";

fn by_digest(kind: u8) -> String {
    format!("oci://registry.example/fl-client@sha256:{}", Digest::of(&[kind]))
}

fn found(kind: u8) -> Found {
    Found { image: by_digest(kind), module: None, signature: None }
}

fn with_module(kind: u8) -> Found {
    let module = Some(vec![kind; 20_000].into());
    Found { module, signature: Some("ann:hers".to_owned()), ..found(kind) }
}

impl World {
    /// A registry's word on the only thing that was asked.
    fn found(&mut self, found: Result<Found, String>) -> Option<Asked> {
        let (wanted, seeker) = self.asked.pop().expect("something was asked");
        assert!(self.asked.is_empty());
        self.step(Input::Report(Report::Found { wanted, seeker, found }))
    }

    fn start_of(&mut self, image: &str, participants: &[&str]) {
        let mut start = round_start("r1", participants);
        start["task_wasm_image"] = json!(image);
        self.say(Topic::RoundStart, start.to_string());
    }

    fn started(&mut self) -> Vec<TaskStart> {
        let starts =
            self.taken(|topic| matches!(topic, Topic::TaskStart | Topic::DirectStart { .. }));
        starts.iter().map(|it| it.open().unwrap()).collect()
    }
}

fn image_task(world: &mut World, edit: Edit) -> TaskId {
    world.make("t1", Edit { image_url: Some(Some(TAG.to_owned())), ..edit })
}

#[test]
fn all_tasks_of_a_round_run_the_same_image() {
    let mut world = World::new();
    ["p1", "p2", "p3"].iter().for_each(|name| world.create(name, &[]));
    world.start_of(TAG, &["p1", "p2", "p3"]);
    assert!(world.started().is_empty() && world.all().is_empty());
    let wanted = Wanted { image: TAG.to_owned(), part: Part::Digest };
    assert_eq!(world.asked, [(wanted, Seeker::Round("r1".parse().unwrap()))]);

    world.found(Ok(found(1)));
    let starts = world.started();
    assert_eq!(starts.len(), 3);
    assert!(starts.iter().all(|it| it.image_url == Some(by_digest(1)) && it.file.is_none()));

    // Said again, also by another life, it is what it was; nobody is asked what the tag means now.
    world.start_of(TAG, &["p1", "p2", "p3"]);
    world.restart();
    world.step(Input::Connected { resumed: true });
    assert!(world.asked.is_empty());
    let starts = world.started();
    assert_eq!(starts.len(), 3);
    assert!(starts.iter().all(|it| it.image_url == Some(by_digest(1))));
    assert!(!world.store.keys().any(|(table, _)| *table == "starts"));
}

#[test]
fn a_round_whose_image_was_being_looked_up_is_not_lost_with_us() {
    let mut world = World::new();
    world.create("p1", &[]);
    world.start_of(TAG, &["p1"]);
    world.asked.clear();
    world.restart();
    assert!(world.asked.is_empty());
    world.step(Input::Connected { resumed: true });
    world.found(Ok(found(2)));
    assert_eq!(world.started()[0].image_url, Some(by_digest(2)));
    // An answer that comes twice changes nothing.
    let seeker = Seeker::Round("r1".parse().unwrap());
    let wanted = Wanted { image: TAG.to_owned(), part: Part::Digest };
    world.step(Input::Report(Report::Found { wanted, seeker, found: Ok(found(3)) }));
    assert_eq!(world.all().len(), 1);
}

#[test]
fn a_long_round_keeps_its_image_over_a_restart() {
    let mut world = World::new();
    let names: Vec<_> = (0..1500).map(|n| format!("p{n:04}")).collect();
    names.iter().for_each(|name| world.create(name, &[]));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.start_of(TAG, &names);
    world.found(Ok(found(1)));
    let first = world.started().len();
    assert!(first < 1500);
    world.restart();
    world.step(Input::Connected { resumed: true });
    assert!(world.asked.is_empty());
    world.live(1.0);
    assert_eq!(world.all().len(), 1500);
    assert!(world.all().iter().all(|it| it.spec.image_url == Some(by_digest(1))));
    assert!(!world.store.keys().any(|(table, _)| *table == "starts"));
}

#[test]
fn nobody_waits_for_a_round_whose_image_cannot_be_had() {
    let mut world = World::new();
    world.create("p1", &[]);
    world.create("p2", &[]);
    world.start_of(TAG, &["p1", "p2"]);
    world.found(Err("there is no such image".to_owned()));
    assert!(world.started().is_empty());
    let absences = world.absences();
    assert_eq!(absences.len(), 2);
    for absent in absences {
        assert_eq!(absent.reason, AbsentReason::TaskFailed);
        assert_eq!(absent.error.as_deref(), Some("there is no such image"));
    }
    world.restart();
    world.step(Input::Connected { resumed: true });
    assert!(world.asked.is_empty());
}

#[test]
fn what_names_one_image_is_not_looked_up() {
    let mut world = World::new();
    world.create("p1", &[]);
    for image in [by_digest(1), "http://h/a".to_owned(), "/m/a.wasm".to_owned()] {
        let id = world.make(
            &format!("t{}", image.len()),
            Edit { image_url: Some(Some(image.clone())), ..pinned("p1") },
        );
        world.start(&id);
        assert_eq!(world.started()[0].image_url, Some(image));
    }
    assert!(world.asked.is_empty());
}

#[test]
fn a_task_is_started_once_its_image_is_known_and_looked_up_at_each_start() {
    let mut world = World::new();
    world.create("p1", &[]);
    let id = image_task(&mut world, pinned("p1"));
    for kind in [1, 2] {
        assert_eq!(world.step(Input::Report(asking(&id))), None, "the answer waits");
        assert!(world.found(Ok(found(kind))).unwrap().is_ok());
        assert_eq!(world.started()[0].image_url, Some(by_digest(kind)));
        assert_eq!(world.view(&id).spec.image_url.as_deref(), Some(TAG));
        assert_eq!(world.view(&id).image, Some(by_digest(kind)));
        // A run that is cut off goes on with the same.
        world.restart();
        world.step(Input::Connected { resumed: true });
        assert_eq!(world.started()[0].image_url, Some(by_digest(kind)));
        let attempt = world.view(&id).attempt;
        world.report(&id, "p1", Some(attempt), json!({ "results": 1 }));
        assert_eq!(world.state(&id), TaskState::Completed);
    }
}

#[test]
fn a_task_that_cannot_start_is_refused_with_the_reason() {
    let mut world = World::new();
    let id = image_task(&mut world, pinned("p1"));
    assert_eq!(world.ask(Ask::StartTask(id.clone())), Err(Refusal::PropletUnknown(proplet("p1"))));
    world.create("p1", &[]);
    world.step(Input::Report(asking(&id)));
    let refused = world.found(Err("no such tag".to_owned())).unwrap().unwrap_err();
    assert!(refused.to_string().contains("no such tag"), "{refused}");
    assert_eq!(world.state(&id), TaskState::Pending);
    // Reworded, deleted or started while it was looked up, it is not what was asked for.
    world.step(Input::Report(asking(&id)));
    let edit = Edit { image_url: Some(Some("oci://r.example/b:1".to_owned())), ..Edit::default() };
    world.ask(Ask::EditTask { id: id.clone(), edit: Box::new(edit) }).unwrap();
    let refused = world.found(Ok(found(1))).unwrap().unwrap_err();
    assert!(refused.to_string().contains("changed"), "{refused}");
    world.step(Input::Report(asking(&id)));
    world.ask(Ask::DeleteTask(id.clone())).unwrap();
    assert_eq!(world.found(Ok(found(1))).unwrap(), Err(Refusal::NoTask(id)));
    assert!(world.started().is_empty());
}

#[test]
fn who_cannot_pull_gets_the_module_from_here_and_others_the_image() {
    let mut world = World::new();
    world.create_with("p1", json!({"directed": true, "module_pieces": true}), Some(&[]));
    let metadata = json!({"directed": true, "module_pieces": true, "image_pull": false});
    world.create_with("p2", metadata, Some(&[]));
    world.start_of(TAG, &["p1", "p2"]);
    assert_eq!(world.asked[0].0.part, Part::Module);
    world.found(Ok(with_module(1)));
    let starts = world.started();
    assert!(starts.iter().all(|it| it.image_url == Some(by_digest(1))));
    assert!(starts[0].file_blob.is_none() && starts[0].module_signature.is_none());
    let blob = starts[1].file_blob.as_ref().expect("it is long enough for pieces");
    assert_eq!(blob.sha256(), Digest::of(&[1; 20_000]));
    assert_eq!(starts[1].module_signature.as_deref(), Some("ann:hers"));
    // A restart sends the same.
    world.restart();
    world.step(Input::Connected { resumed: true });
    let again = world.started();
    assert_eq!(again.len(), 2);
    assert_eq!(again[1].file_blob, starts[1].file_blob);
    assert_eq!(again[1].module_signature, starts[1].module_signature);
}

#[test]
fn who_was_there_before_us_is_handed_the_module_and_pulls_where_it_cannot_be_had() {
    let mut world = World::new();
    world.alive("p1", &[]);
    world.start_of(TAG, &["p1"]);
    assert_eq!(world.asked[0].0.part, Part::Module);
    world.found(Ok(with_module(1)));
    assert!(world.started()[0].file_blob.is_some());
    // We reach no registry; the proplet may.
    let id = world.make("t2", Edit { image_url: Some(Some(by_digest(2))), ..pinned("p1") });
    world.step(Input::Report(asking(&id)));
    assert_eq!(world.asked[0].0.part, Part::Module);
    assert!(world.found(Err("cannot be reached".to_owned())).unwrap().is_ok());
    let starts = world.started();
    assert_eq!(starts[0].image_url, Some(by_digest(2)));
    assert!(starts[0].file.is_none() && starts[0].file_blob.is_none());
    world.report(&id, "p1", Some(1), json!({ "results": 1 }));
    // What a tag means nobody can say, and who has said that it does not pull will not.
    let tagged = image_task(&mut world, pinned("p1"));
    world.step(Input::Report(asking(&tagged)));
    assert!(world.found(Err("cannot be reached".to_owned())).unwrap().is_err());
    world.create_with("p1", json!({"image_pull": false}), Some(&[]));
    world.step(Input::Report(asking(&id)));
    assert!(world.found(Err("cannot be reached".to_owned())).unwrap().is_err());
    // It has said who it is.
    world.create_with("p1", json!({"image_pull": true}), Some(&[]));
    world.step(Input::Report(asking(&id)));
    assert!(world.asked.is_empty());
}

#[test]
fn a_manager_that_delivers_does_so_to_everybody_and_holds_the_module_as_long_as_a_task_names_it() {
    let limits = Limits { image_delivery: Delivery::Manager, ..Limits::default() };
    let mut world = World::with(limits);
    world.create("p1", &[]);
    let edit = Edit { image_url: Some(Some(by_digest(1))), ..pinned("p1") };
    let id = world.make("t1", edit);
    world.step(Input::Report(asking(&id)));
    assert_eq!(world.asked[0].0.part, Part::Module);
    world.found(Ok(with_module(1))).unwrap().unwrap();
    assert!(world.started()[0].file_blob.is_some());
    let held = |world: &World| world.store.keys().filter(|(table, _)| *table == "files").count();
    assert_eq!(held(&world), 1);
    world.report(&id, "p1", Some(1), json!({ "results": 1 }));
    // The next start is of another module.
    world.step(Input::Report(asking(&id)));
    world.found(Ok(with_module(2))).unwrap().unwrap();
    assert_eq!(held(&world), 1);
    world.report(&id, "p1", Some(2), json!({ "results": 1 }));
    world.restart();
    world.ask(Ask::DeleteTask(task("t1"))).unwrap();
    assert_eq!(held(&world), 0);
}

#[test]
fn a_module_that_there_is_no_room_for_is_no_module() {
    let limits =
        Limits { image_delivery: Delivery::Manager, files_len_max: 19_999, ..Limits::default() };
    let mut world = World::with(limits);
    world.create("p1", &[]);
    world.start_of(TAG, &["p1"]);
    world.found(Ok(with_module(1)));
    let absences = world.absences();
    assert!(absences[0].error.as_ref().unwrap().contains("20000 bytes"), "{absences:?}");
}

fn asking(id: &TaskId) -> Report<u32> {
    Report::Asked { reply: 7, ask: Ask::StartTask(id.clone()) }
}
