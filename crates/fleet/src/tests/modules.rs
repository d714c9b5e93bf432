//! Modules that go in pieces: to those who know how, once for all, and no longer than they are needed.

use bytes::Bytes;
use protocol::{
    AbsentReason, Digest, Input, Manifest, Topic,
    message::{ModuleWants, TaskStart},
};
use serde_json::{Value, json};

use super::world::{World, pinned, proplet, round_start};
use crate::{Ask, Edit, Limits, Refusal, Report};

const CHUNK: u32 = 1 << 10;
const PIECES: u32 = 40;
/// What nobody waits for longer than that stays at the broker no longer.
const LINGER_S: f64 = 600.0;

fn module() -> Bytes {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    let rest = (PIECES * CHUNK) as usize - bytes.len();
    bytes.extend((0..rest).map(|n| u8::try_from(n / 1000 % 251).unwrap()));
    bytes.into()
}

fn limits() -> Limits {
    Limits { chunk_len: CHUNK, message_len_max: 15 << 10, ..Limits::default() }
}

fn able() -> Value {
    json!({"directed": true, "module_pieces": true})
}

fn with_module(edit: Edit) -> Edit {
    Edit { file: Some(Some(module())), ..edit }
}

fn wants(from: &str) -> ModuleWants {
    ModuleWants { proplet_id: proplet(from), sha256: Digest::of(&module()) }
}

impl World {
    fn letters(&mut self) -> Vec<TaskStart> {
        let starts =
            self.taken(|topic| matches!(topic, Topic::TaskStart | Topic::DirectStart { .. }));
        starts.iter().map(|it| it.open().unwrap()).collect()
    }

    /// Lets all pieces go that wait; how many went, each of them right.
    fn pass_all(&mut self, manifest: &Manifest) -> Vec<u32> {
        let mut most = 0;
        while !self.passing.is_empty() {
            most = most.max(self.passing.len());
            let piece = self.passing.remove(0);
            self.step(Input::Report(Report::Passed(piece)));
        }
        assert!(most <= 4, "{most} pieces are on their way at once");
        let sent = self.taken(|topic| matches!(topic, Topic::ModuleChunk { .. }));
        let indexes = sent.iter().map(|envelope| {
            let Topic::ModuleChunk { sha256, index } = envelope.topic else { unreachable!() };
            assert_eq!(sha256, manifest.sha256());
            manifest.check(index, &envelope.payload).expect("the right piece");
            index
        });
        indexes.collect()
    }

    /// Pieces that were taken away from the broker.
    fn cleared(&mut self) -> usize {
        let (cleared, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.promised)
            .into_iter()
            .partition(|it| matches!(it.topic, Topic::ModuleChunk { .. }));
        self.promised = left;
        assert!(cleared.iter().all(|it| it.payload.is_empty()));
        cleared.len()
    }
}

#[test]
fn a_long_module_goes_once_however_many_are_to_run_it() {
    let mut world = World::with(limits());
    for name in ["p-1", "p-2"] {
        world.create_with(name, able(), Some(&[]));
    }
    let mut start = round_start("r-1", &["p-1", "p-2"]);
    start["file"] = json!(super::world::base64(&module()));
    world.say(Topic::RoundStart, start.to_string());
    let starts = world.letters();
    assert_eq!(starts.len(), 2);
    let manifest = starts[0].file_blob.clone().expect("in pieces");
    assert!(starts.iter().all(|it| it.file.is_none() && it.file_blob.as_ref() == Some(&manifest)));
    assert_eq!((manifest.sha256(), manifest.count()), (Digest::of(&module()), PIECES));
    assert_eq!(world.pass_all(&manifest), (0..PIECES).collect::<Vec<_>>());

    // The next round names the same module: its pieces stand there already.
    world.pass(60.0);
    let mut start = round_start("r-2", &["p-1", "p-2"]);
    start["file"] = json!(super::world::base64(&module()));
    world.say(Topic::RoundStart, start.to_string());
    assert_eq!(world.letters().len(), 2);
    assert_eq!(world.pass_all(&manifest), [0_u32; 0]);
}

#[test]
fn who_does_not_say_that_it_knows_pieces_gets_the_whole() {
    let mut world = World::with(Limits { message_len_max: usize::MAX, ..limits() });
    world.create_with("p-1", json!({"os": "linux"}), Some(&[]));
    let task = world.make("t-1", with_module(pinned("p-1")));
    world.start(&task);
    let starts = world.letters();
    assert_eq!(starts[0].file.as_deref(), Some(&*super::world::base64(&module())));
    assert_eq!((starts[0].file_blob.as_ref(), world.passing.len()), (None, 0));
}

#[test]
fn who_was_there_before_us_gets_pieces_if_it_says_what_it_holds() {
    let mut world = World::with(limits());
    world.alive("p-1", &[]);
    let task = world.make("t-1", with_module(pinned("p-1")));
    world.start(&task);
    assert!(world.letters()[0].file_blob.is_some());
}

#[test]
fn a_start_that_the_broker_does_not_take_is_refused_and_names_both_lengths() {
    let mut world = World::with(limits());
    world.create_with("p-1", json!({"os": "linux"}), Some(&[]));
    world.create_with("p-2", able(), Some(&[]));
    let task = world.make("t-1", with_module(pinned("p-1")));
    let refused = world.ask(Ask::StartTask(task)).unwrap_err();
    assert!(
        matches!(refused, Refusal::StartTooLong { len: 40_000.., max: 15_360, .. }),
        "{refused}"
    );
    // A long environment is too long whatever the module.
    let env = [("LONG".to_owned(), "x".repeat(16 << 10))].into();
    let task = world.make("t-2", Edit { env: Some(env), ..pinned("p-2") });
    let refused = world.ask(Ask::StartTask(task)).unwrap_err();
    assert!(matches!(refused, Refusal::StartTooLong { .. }), "{refused}");
    // In a round, the participant is absent, and it is said why.
    let mut start = round_start("r-1", &["p-1", "p-2"]);
    start["file"] = json!(super::world::base64(&module()));
    world.say(Topic::RoundStart, start.to_string());
    let absent = world.absences();
    assert_eq!((absent.len(), absent[0].reason), (1, AbsentReason::TaskFailed));
    assert!(absent[0].error.as_ref().unwrap().contains("15360"), "{absent:?}");
    assert_eq!(world.letters().len(), 1);
}

#[test]
fn pieces_are_shown_again_when_they_are_lost_and_not_for_everybody_who_says_so() {
    let mut world = World::with(limits());
    world.create_with("p-1", able(), Some(&[]));
    let task = world.make("t-1", with_module(pinned("p-1")));
    world.start(&task);
    let manifest = world.letters()[0].file_blob.clone().unwrap();
    world.hear(&wants("p-1"));
    assert_eq!(world.pass_all(&manifest).len(), PIECES as usize);
    for n in 0..100 {
        world.hear(&wants(&format!("p-{n}")));
    }
    assert_eq!(world.pass_all(&manifest), [0_u32; 0], "they were shown a moment ago");
    world.pass(6.0);
    for n in 0..100 {
        world.hear(&wants(&format!("p-{n}")));
    }
    assert_eq!(world.pass_all(&manifest).len(), PIECES as usize, "once for all");
    // A broker that has forgotten everything.
    world.fleet_disconnected();
    world.step(Input::Connected { resumed: false });
    assert_eq!(world.pass_all(&manifest).len(), PIECES as usize);
    world.fleet_disconnected();
    world.step(Input::Connected { resumed: true });
    assert_eq!(world.pass_all(&manifest), [0_u32; 0]);
    // Nothing is known of another module.
    let sha256 = Digest::of(b"another");
    world.hear(&ModuleWants { proplet_id: proplet("p-1"), sha256 });
    assert!(world.passing.is_empty());
}

#[test]
fn a_manager_that_dies_among_the_pieces_shows_them_all_again() {
    let mut world = World::with(limits());
    world.create_with("p-1", able(), Some(&[]));
    let task = world.make("t-1", with_module(pinned("p-1")));
    world.start(&task);
    let manifest = world.letters()[0].file_blob.clone().unwrap();
    let piece = world.passing.remove(0);
    world.step(Input::Report(Report::Passed(piece)));
    world.passing.clear();
    world.published.clear();
    world.restart();
    world.step(Input::Connected { resumed: true });
    assert_eq!(world.pass_all(&manifest), (0..PIECES).collect::<Vec<_>>());
    assert_eq!(world.letters()[0].file_blob.as_ref(), Some(&manifest), "it was not confirmed");
}

#[test]
fn pieces_leave_the_broker_when_nobody_needs_them() {
    let mut world = World::with(limits());
    world.create_with("p-1", able(), Some(&[]));
    let task = world.make("t-1", with_module(pinned("p-1")));
    world.start(&task);
    let manifest = world.letters()[0].file_blob.clone().unwrap();
    world.pass_all(&manifest);
    world.report(&task, "p-1", Some(1), json!({"results": 7}));
    world.live(LINGER_S - 1.0);
    assert_eq!(world.cleared(), 0);
    world.live(2.0);
    assert_eq!(world.cleared(), PIECES as usize);
    assert_eq!(world.store.keys().filter(|(table, _)| *table == "shown").count(), 0);
    // Whoever lacks them after all gets them.
    world.hear(&wants("p-1"));
    assert_eq!(world.pass_all(&manifest).len(), PIECES as usize);
    // With the last task that names it, a module is gone at once, also before a restart.
    world.ask(Ask::DeleteTask(task)).unwrap();
    assert_eq!(world.cleared(), PIECES as usize);
    assert_eq!(world.store.keys().filter(|(table, _)| *table == "files").count(), 0);
}
