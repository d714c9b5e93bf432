//! Modules that come in pieces: fetched once, checked one by one, and run from the disk ever after.

use std::{collections::BTreeSet, time::Duration};

use agent::{BaseModel, Effect, Report};
use bytes::Bytes;
use protocol::{
    Digest, Envelope, Filter, Input, Machine as _, Manifest, Topic,
    manifest::Format,
    message::{ModuleWants, TaskStart},
};
use transfer::Bitmap;

use crate::device::{Device, federated, me, plain, printed, stop, task_id};

const CHUNK: u32 = 1 << 10;
const COUNT: u32 = 40;
/// What is under way at once: so many pieces, and never more.
const WINDOW: usize = 16;

fn bytes() -> Bytes {
    let piece = |index: u32| vec![u8::try_from(index).expect("few"); CHUNK as usize];
    (0..COUNT).flat_map(piece).collect::<Vec<u8>>().into()
}

fn blob() -> Manifest {
    Manifest::of(&bytes(), CHUNK, Format::wasm()).expect("a manifest")
}

fn sha256() -> Digest {
    blob().sha256()
}

fn piece(index: u32) -> Bytes {
    let from = (index * CHUNK) as usize;
    bytes().slice(from..from + CHUNK as usize)
}

fn in_pieces(start: TaskStart) -> TaskStart {
    TaskStart { file: None, file_blob: Some(blob()), ..start }
}

fn is_store(effect: &Effect) -> bool {
    matches!(effect, Effect::Store { .. })
}

impl Device {
    fn hear_module(&mut self, index: u32, payload: Bytes) {
        let topic = Topic::ModuleChunk { sha256: sha256(), index };
        self.hear_envelope(Envelope { topic, payload });
    }

    fn tell(&mut self, report: Report) {
        self.step(Input::Report(report));
    }

    /// The disk says what is there.
    fn looked(&mut self, have: &Bitmap) {
        let at = self.effects.iter().position(|it| *it == Effect::Begin(blob()));
        self.effects.remove(at.expect("the disk is asked"));
        self.tell(Report::Begun { sha256: sha256(), have: Ok(have.clone()) });
    }

    fn lacking(&self) -> BTreeSet<u32> {
        let index = |filter: &Filter| {
            let Filter::Exactly(Topic::ModuleChunk { index, sha256: of }) = filter else {
                return None;
            };
            (*of == sha256()).then_some(*index)
        };
        self.listening.iter().filter_map(index).collect()
    }

    fn write_all(&mut self) {
        while let Some(at) = self.effects.iter().position(is_store) {
            let Effect::Store { blob, index, bytes } = self.effects.remove(at) else { panic!() };
            blob.check(index, &bytes).expect("only what is right is stored");
            self.tell(Report::Stored { sha256: blob.sha256(), index, result: Ok(()) });
        }
    }

    fn give_module(&mut self) {
        while let Some(index) = self.lacking().first().copied() {
            assert!(self.lacking().len() <= WINDOW);
            self.hear_module(index, piece(index));
            self.write_all();
        }
    }

    fn whole(&mut self, result: Result<(), String>) {
        let at = self.effects.iter().position(|it| *it == Effect::Finish(blob()));
        self.effects.remove(at.expect("the whole is checked"));
        self.tell(Report::Fetched { sha256: sha256(), result });
    }

    fn asks(&mut self) -> Vec<ModuleWants> {
        self.take(&Topic::ModuleWants)
    }
}

fn empty() -> Bitmap {
    Bitmap::empty(COUNT)
}

#[test]
fn a_module_is_fetched_once_and_pinned_as_long_as_tasks_run_on_it() {
    let mut device = Device::connected(|config| config.concurrency = 2);
    device.hear(&in_pieces(plain("t-1", 1)));
    device.hear(&in_pieces(plain("t-2", 1)));
    device.looked(&empty());
    device.give_module();
    assert!(device.runs.is_empty());
    device.whole(Ok(()));
    assert_eq!((device.runs.len(), device.pins(sha256())), (2, 2));
    assert_eq!(device.asks(), [], "the pieces stood at the broker");
    device.finish("t-1", 1, printed("1"));
    device.finish("t-2", 1, printed("2"));
    assert_eq!(device.pins(sha256()), 0);

    // It is on the disk: nothing is listened to.
    device.hear(&in_pieces(plain("t-3", 1)));
    device.looked(&Bitmap::full(COUNT));
    assert_eq!(device.lacking(), BTreeSet::new());
    device.whole(Ok(()));
    assert!(device.runs.contains_key(&(task_id("t-3"), 1)));
    assert_eq!(device.asks(), []);
}

#[test]
fn a_task_waits_for_its_model_and_its_module_whichever_comes_first() {
    for model_first in [true, false] {
        let mut device = Device::connected(|_| {});
        device.hear(&in_pieces(federated("t-1", 1, "r-1", 0)));
        device.looked(&empty());
        let module = |device: &mut Device| {
            device.give_module();
            device.whole(Ok(()));
        };
        if model_first {
            device.hear_model(0);
            assert!(device.runs.is_empty());
            module(&mut device);
        } else {
            module(&mut device);
            assert!(device.runs.is_empty());
            assert_eq!(device.pins(sha256()), 1);
            device.hear_model(0);
        }
        let model = &device.runs[&(task_id("t-1"), 1)];
        assert!(matches!(model, Some(BaseModel::Here(_))), "{model:?}");
        assert_eq!(device.pins(sha256()), 1);
    }
}

#[test]
fn what_is_not_a_piece_is_refused_and_asked_for_again() {
    let mut device = Device::connected(|_| {});
    device.hear(&in_pieces(plain("t-1", 1)));
    device.looked(&empty());
    for _ in 0..1000 {
        // Damaged, too long, empty, foreign, not asked for, of no place.
        device.hear_module(0, piece(1));
        device.hear_module(0, bytes());
        device.hear_module(0, Bytes::new());
        device.hear_module(COUNT - 1, piece(COUNT - 1));
        device.hear_module(COUNT, piece(0));
        let topic = Topic::ModuleChunk { sha256: Digest::of(b"other"), index: 0 };
        device.hear_envelope(Envelope { topic, payload: piece(0) });
    }
    assert!(!device.effects.iter().any(is_store), "none of it gets anywhere");
    // A damaged piece is asked for again, soon, whoever damaged it.
    device.wait(Duration::from_secs(1));
    let asks = device.asks();
    assert_eq!(asks, [ModuleWants { proplet_id: me(), sha256: sha256() }]);
    device.give_module();
    device.whole(Ok(()));
    assert_eq!(device.runs.len(), 1);
}

#[test]
fn pieces_that_do_not_come_are_asked_for_and_after_a_while_given_up() {
    let mut device = Device::connected(|config| config.model_wait = Duration::from_secs(30));
    device.hear(&in_pieces(plain("t-1", 1)));
    device.looked(&empty());
    device.wait(Duration::from_secs(4));
    assert_eq!(device.asks().len(), 1);
    device.wait(Duration::from_secs(25));
    assert!(device.take_results().is_empty());
    device.wait(Duration::from_secs(2));
    let result = device.take_result();
    assert_eq!(result.code.expect("a code").0, "no_module");
    assert!(result.error.expect("an error").contains("within 30 s"));
    assert_eq!((device.lacking(), device.pins(sha256())), (BTreeSet::new(), 0));
    assert_eq!(device.effects.pop(), Some(Effect::Abandon(blob())));
}

#[test]
fn a_lost_connection_costs_nothing_that_has_come() {
    let mut device = Device::connected(|_| {});
    device.hear(&in_pieces(plain("t-1", 1)));
    device.looked(&empty());
    for index in 0..20 {
        device.hear_module(index, piece(index));
        device.write_all();
    }
    device.agent.disconnected();
    device.connect();
    device.wait(Duration::from_secs(2));
    assert!(device.lacking().iter().all(|index| *index >= 20));
    device.give_module();
    device.whole(Ok(()));
    assert_eq!(device.runs.len(), 1);
}

#[test]
fn a_module_that_is_another_as_a_whole_or_too_large_is_not_run() {
    let mut device = Device::connected(|_| {});
    device.hear(&in_pieces(plain("t-1", 1)));
    device.looked(&empty());
    device.give_module();
    device.whole(Err("another digest".to_owned()));
    let result = device.take_result();
    assert_eq!(result.code.expect("a code").0, "no_module");
    assert!(result.error.expect("an error").contains("another digest"));

    let mut device = Device::connected(|config| config.module_bytes_max = 1000);
    device.hear(&in_pieces(plain("t-1", 1)));
    let result = device.take_result();
    assert_eq!(result.code.expect("a code").0, "fetch_too_large");
    assert!(device.effects.is_empty() && device.listening.is_empty());
}

#[test]
fn a_task_that_is_stopped_lets_go_of_what_it_waited_for() {
    let mut device = Device::connected(|_| {});
    device.hear(&in_pieces(federated("t-1", 1, "r-1", 0)));
    device.looked(&empty());
    device.give_module();
    device.whole(Ok(()));
    assert_eq!(device.pins(sha256()), 1);
    device.hear(&stop("t-1"));
    assert_eq!(device.take_result().code.expect("a code").0, "cancelled");
    assert_eq!(device.pins(sha256()), 0);
    assert_eq!(device.listening.len(), 0, "{:?}", device.listening);
    assert_eq!(device.agent.slots_taken(), 0);
}
