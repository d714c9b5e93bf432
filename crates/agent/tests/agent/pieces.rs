//! Models that come in pieces, and updates that go in pieces.

use std::{collections::BTreeSet, time::Duration};

use agent::{BaseModel, Effect, GuestOutput, Outcome, PackedUpdate, Report};
use bytes::Bytes;
use protocol::{
    Digest, Envelope, Filter, Input, Machine as _, Manifest, ModelLine, ModelUri, ModelVersion,
    PropletId, Rejection, Topic,
    manifest::Format,
    message::{ModelBlob, ModelWants, UpdateWants, Wants, is_blob_form, read_update_offer},
};
use serde_json::json;
use transfer::Bitmap;

use crate::device::{Device, federated, me, plain, printed, round_id, stop, task_id, update, uri};

const CHUNK: u32 = 1 << 10;
const COUNT: u32 = 40;

/// Its pieces are all different.
fn bytes(seed: u8) -> Bytes {
    let piece = |index: u32| vec![seed ^ u8::try_from(index).expect("few"); CHUNK as usize];
    (0..COUNT).flat_map(piece).collect::<Vec<u8>>().into()
}

fn blob(seed: u8) -> Manifest {
    Manifest::of(&bytes(seed), CHUNK, Format::safetensors()).expect("a manifest")
}

fn piece(seed: u8, index: u32) -> Bytes {
    let from = (index * CHUNK) as usize;
    bytes(seed).slice(from..from + CHUNK as usize)
}

impl Device {
    fn hear_blob(&mut self, version: u64, blob: &Manifest) {
        let model = ModelBlob { version: ModelVersion(version), blob: blob.clone() };
        self.hear_envelope(model.shown(&ModelLine::default()));
    }

    fn hear_piece(&mut self, version: u64, index: u32, payload: Bytes) {
        let topic = Topic::ModelChunk { uri: ModelUri::global(ModelVersion(version)), index };
        self.hear_envelope(Envelope { topic, payload });
    }

    fn report(&mut self, report: Report) {
        self.step(Input::Report(report));
    }

    fn begun(&mut self, blob: &Manifest, have: &[u32]) {
        self.take_effect("Begin");
        let mut bitmap = Bitmap::empty(blob.count());
        have.iter().for_each(|index| bitmap.insert(*index));
        self.report(Report::Begun { sha256: blob.sha256(), have: Ok(bitmap) });
    }

    /// The disk has written all that it was given.
    fn stored(&mut self) -> Vec<u32> {
        let mut stored = vec![];
        while let Some(at) = self.effects.iter().position(|it| matches!(it, Effect::Store { .. })) {
            let Effect::Store { blob, index, bytes } = self.effects.remove(at) else { panic!() };
            blob.check(index, &bytes).expect("only what is right is stored");
            stored.push(index);
            self.report(Report::Stored { sha256: blob.sha256(), index, result: Ok(()) });
        }
        stored
    }

    /// The next effect of this name.
    fn take_effect(&mut self, name: &str) -> Effect {
        let named = |effect: &Effect| format!("{effect:?}").starts_with(name);
        let at = self.effects.iter().position(named);
        let at = at.unwrap_or_else(|| panic!("no {name} in {:?}", self.effects));
        self.effects.remove(at)
    }

    /// Which pieces it listens to.
    fn wants(&self) -> BTreeSet<u32> {
        let index = |filter: &Filter| {
            let Filter::Exactly(Topic::ModelChunk { index, .. }) = filter else { return None };
            Some(*index)
        };
        self.listening.iter().filter_map(index).collect()
    }

    /// Gives it every piece that it listens to, until it listens to none.
    fn give_all(&mut self, version: u64, seed: u8) -> u32 {
        let mut given = 0;
        while let Some(index) = self.wants().first().copied() {
            self.hear_piece(version, index, piece(seed, index));
            self.stored();
            given += 1;
        }
        given
    }

    fn finished_fetching(&mut self, blob: &Manifest) {
        assert_eq!(self.take_effect("Finish"), Effect::Finish(blob.clone()));
        self.report(Report::Fetched { sha256: blob.sha256(), result: Ok(()) });
    }

    fn want(&mut self, round: &str, sha256: Digest, indexes: &[u32]) {
        let wants = Wants { sha256, indexes: indexes.iter().copied().collect() };
        self.hear(&UpdateWants { round_id: round_id(round), proplet_id: me(), wants });
    }

    /// Reads what it is asked to read; which pieces went out.
    fn sends(&mut self, seed: u8) -> Vec<u32> {
        while let Some(at) =
            self.effects.iter().position(|it| matches!(it, Effect::ReadChunk { .. }))
        {
            let Effect::ReadChunk { round, blob, index } = self.effects.remove(at) else {
                panic!()
            };
            let (sha256, result) = (blob.sha256(), Ok(piece(seed, index)));
            self.report(Report::ChunkRead { round, sha256, index, result });
        }
        let sent = self.said.iter().filter_map(|envelope| {
            let Topic::UpdateChunk { index, proplet, .. } = &envelope.topic else { return None };
            assert_eq!((proplet, &envelope.payload), (&me(), &piece(seed, *index)));
            Some(*index)
        });
        let sent = sent.collect();
        self.said.retain(|envelope| !matches!(envelope.topic, Topic::UpdateChunk { .. }));
        sent
    }
}

fn fetching() -> Device {
    let mut device = Device::connected(|_| {});
    device.hear(&federated("t-1", 0, "r-1", 3));
    device.hear_blob(3, &blob(7));
    device
}

#[test]
fn a_model_comes_in_pieces_and_the_task_runs_on_a_file() {
    let mut device = fetching();
    let blob = blob(7);
    assert!(
        !device
            .listening
            .contains(&Filter::Exactly(Topic::Model { uri: ModelUri::global(ModelVersion(3)) }))
    );
    device.begun(&blob, &[]);
    assert_eq!(device.wants(), (0..16).collect(), "a window, not all");
    assert_eq!(device.give_all(3, 7), COUNT);
    assert_eq!(device.runs.len(), 0, "the whole is checked first");
    device.finished_fetching(&blob);
    let expected = Some(BaseModel::Stored(blob.sha256()));
    assert_eq!(device.runs.get(&(task_id("t-1"), 0)), Some(&expected));
    assert_eq!(device.pins(blob.sha256()), 1, "as long as it runs");
    device.print("t-1", 0, &update("r-1", 3));
    assert_eq!(device.take_result().error, None);
    assert_eq!(device.pins(blob.sha256()), 0);

    device.hear(&federated("t-2", 0, "r-2", 3));
    device.begun(&blob, &(0..COUNT).collect::<Vec<_>>());
    assert!(device.wants().is_empty(), "it lies on the disk");
    device.finished_fetching(&blob);
    assert_eq!(device.runs.len(), 1);
}

#[test]
fn a_restart_in_the_middle_goes_on_with_what_is_on_the_disk() {
    let mut device = fetching();
    device.begun(&blob(7), &[]);
    for index in 0..10 {
        device.hear_piece(3, index, piece(7, index));
    }
    assert_eq!(device.stored().len(), 10);
    device.crash();
    device.effects.clear();
    device.connect();
    device.hear(&federated("t-1", 0, "r-1", 3));
    device.hear_blob(3, &blob(7));
    device.begun(&blob(7), &[0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(device.wants().first(), Some(&9), "the tenth did not survive");
    assert_eq!(device.give_all(3, 7), COUNT - 9);
    device.finished_fetching(&blob(7));
    assert_eq!(device.runs.len(), 1);
}

#[test]
fn what_is_wrong_or_nobody_asked_for_is_not_stored_and_the_right_piece_still_is() {
    let mut device = fetching();
    device.begun(&blob(7), &[]);
    for (index, payload) in [
        (0, piece(7, 1)),
        (0, Bytes::from_static(b"short")),
        (0, Bytes::new()),
        (39, piece(7, 39)),
        (40, piece(7, 0)),
        (u32::MAX, piece(7, 0)),
    ] {
        device.hear_piece(3, index, payload);
    }
    device.hear_piece(4, 0, piece(7, 0));
    assert_eq!(device.stored(), Vec::<u32>::new());
    device.wait(Duration::from_secs(1));
    assert!(device.wants().contains(&0), "a spoiled piece is asked for again");
    let wants: Vec<ModelWants> = device.take(&Topic::ModelWants { line: ModelLine::default() });
    assert_eq!(wants.first().map(|it| it.version), Some(ModelVersion(3)), "the holder is told");
    device.hear_piece(3, 0, piece(7, 0));
    device.hear_piece(3, 0, piece(7, 0));
    assert_eq!(device.stored(), [0]);
    device.give_all(3, 7);
    device.finished_fetching(&blob(7));
    assert_eq!(device.runs.len(), 1);
}

#[test]
fn a_task_waits_as_long_as_pieces_come_and_no_longer() {
    let mut device = fetching();
    device.begun(&blob(7), &[]);
    for index in 0..5 {
        device.wait(Duration::from_secs(25));
        device.hear_piece(3, index, piece(7, index));
        device.stored();
    }
    assert_eq!(device.take_results().len(), 0, "125 s, but never 30 s without progress");
    device.wait(Duration::from_secs(31));
    let result = device.take_result();
    assert_eq!(result.code.expect("a code").0, "no_model");
    assert!(device.wants().is_empty(), "nothing is listened to for nobody");
    device.take_effect("Abandon");
    device.wait(Duration::from_secs(3600));
    device.take::<ModelWants>(&Topic::ModelWants { line: ModelLine::default() });
    device.wait(Duration::from_secs(3600));
    assert!(
        device.take::<ModelWants>(&Topic::ModelWants { line: ModelLine::default() }).is_empty(),
        "nor asked for"
    );
}

#[test]
fn while_the_disk_works_nobody_gives_up() {
    let mut device = fetching();
    device.wait(Duration::from_secs(300));
    assert_eq!(device.take_results().len(), 0, "a large file is looked at");
    device.begun(&blob(7), &[]);
    device.give_all(3, 7);
    device.wait(Duration::from_secs(300));
    assert_eq!(device.take_results().len(), 0, "and checked");
    device.finished_fetching(&blob(7));
    assert_eq!(device.runs.len(), 1);
}

#[test]
fn after_a_lost_connection_it_goes_on_where_it_was() {
    let mut device = fetching();
    device.begun(&blob(7), &[]);
    device.hear_piece(3, 0, piece(7, 0));
    device.stored();
    device.agent.disconnected();
    device.wait(Duration::from_secs(3600));
    assert_eq!(device.take_results().len(), 0, "silence says nothing");
    device.connect();
    device.wait(Duration::from_secs(2));
    assert!(!device.wants().contains(&0));
    assert_eq!(device.give_all(3, 7), COUNT - 1);
    device.finished_fetching(&blob(7));
    assert_eq!(device.runs.len(), 1);
}

#[test]
fn a_disk_without_room_and_a_model_that_lies_end_the_task_with_the_reason() {
    let mut device = fetching();
    device.take_effect("Begin");
    let have = Err("no room for 40960 bytes".to_owned());
    device.report(Report::Begun { sha256: blob(7).sha256(), have });
    let error = device.take_result().error.expect("an error");
    assert!(error.contains("no room for 40960 bytes"), "{error}");

    device.hear(&federated("t-2", 0, "r-2", 3));
    device.hear_blob(3, &blob(7));
    device.begun(&blob(7), &[]);
    device.give_all(3, 7);
    device.take_effect("Finish");
    let result = Err("other bytes".to_owned());
    device.report(Report::Fetched { sha256: blob(7).sha256(), result });
    let error = device.take_result().error.expect("an error");
    assert!(error.contains("other bytes"), "{error}");
    assert_eq!(device.agent.slots_taken(), 0);
}

#[test]
fn a_stopped_task_fetches_no_more_and_late_reports_change_nothing() {
    let mut device = fetching();
    device.begun(&blob(7), &[]);
    device.hear(&stop("t-1"));
    assert!(device.wants().is_empty());
    device.take_effect("Abandon");
    device.hear_piece(3, 0, piece(7, 0));
    device.report(Report::Stored { sha256: blob(7).sha256(), index: 0, result: Ok(()) });
    device.report(Report::Fetched { sha256: blob(7).sha256(), result: Ok(()) });
    assert_eq!(device.take_effect("Release"), Effect::Release(blob(7).sha256()));
    assert_eq!((device.runs.len(), device.agent.slots_taken()), (0, 0));
}

/// A task whose guest has left a long file.
fn packed(device: &mut Device, task: &str, round: &str, fields: &[(&str, &str)]) {
    device.hear(&federated(task, 0, round, 0));
    if !device.runs.contains_key(&(task_id(task), 0)) {
        device.hear_model(0);
    }
    let field = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let metadata = fields.iter().map(field).collect();
    device.pin(blob(9).sha256());
    device.finish(task, 0, Outcome::Packed(PackedUpdate { metadata, blob: blob(9), state: None }));
}

fn offered() -> Device {
    let mut device = Device::connected(|_| {});
    packed(&mut device, "t-1", "r-1", &[("num_samples", "7"), ("metrics", r#"{"loss":0.5}"#)]);
    device
}

#[test]
fn a_long_update_is_offered_and_exactly_what_is_wanted_is_sent() {
    let mut device = offered();
    let result = device.take_result().results;
    assert_eq!((&result["bytes"], &result["chunks"]), (&json!(40960), &json!(40)));
    assert_eq!((&result["update"], &result["num_samples"]), (&json!("published"), &json!(7)));
    let said = device.take_payloads("r-1");
    assert!(is_blob_form(&said[0]));
    let offer = read_update_offer(&said[0], Some(&me())).expect("an offer");
    assert_eq!((offer.num_samples, offer.metrics["loss"]), (7, 0.5));
    assert_eq!((offer.base_model_uri.version, &offer.blob), (ModelVersion(0), &blob(9)));
    device.wait(Duration::from_secs(2));
    assert_eq!(device.take_payloads("r-1"), said, "the same again, until it is judged");

    device.want("r-1", blob(9).sha256(), &[3, 5, 39]);
    assert_eq!(device.sends(9), [3, 5, 39]);
    let all: Vec<u32> = (0..COUNT).collect();
    device.want("r-1", blob(9).sha256(), &all);
    let reading = device.effects.iter().filter(|it| matches!(it, Effect::ReadChunk { .. }));
    assert!(reading.count() <= 4, "however many are wanted, few are in memory");
    device.want("r-1", blob(9).sha256(), &all);
    let once: Vec<u32> = all.iter().copied().filter(|it| ![3, 5, 39].contains(it)).collect();
    assert_eq!(device.sends(9), once, "wanted twice, sent once");
    device.wait(Duration::from_secs(1));
    device.want("r-1", blob(9).sha256(), &[3]);
    assert_eq!(device.sends(9), [3], "a lost piece is sent again");
}

#[test]
fn wants_of_anything_else_are_not_answered() {
    let mut device = offered();
    device.want("r-1", blob(8).sha256(), &[0]);
    device.want("r-2", blob(9).sha256(), &[0]);
    device.want("r-1", blob(9).sha256(), &[0, COUNT]);
    let other: PropletId = "proplet-2".parse().expect("an id");
    let wants = Wants { sha256: blob(9).sha256(), indexes: BTreeSet::from([0]) };
    device.hear(&UpdateWants { round_id: round_id("r-1"), proplet_id: other, wants });
    assert_eq!(device.sends(9), Vec::<u32>::new());
}

#[test]
fn a_verdict_ends_it_and_a_restart_does_not() {
    let mut device = offered();
    device.take_result();
    device.crash();
    device.effects.clear();
    device.connect();
    assert_eq!(device.pins(blob(9).sha256()), 1, "the pins of the last process are gone");
    assert_eq!(device.take_payloads("r-1").len(), 1);
    device.want("r-1", blob(9).sha256(), &[1]);
    device.reject("r-1", Rejection::RoundClosed);
    assert_eq!(device.pins(blob(9).sha256()), 0);
    assert_eq!(device.take_effect("Drop"), Effect::Drop(blob(9).sha256()));
    assert_eq!(device.sends(9), Vec::<u32>::new(), "what is read still goes nowhere");
    device.want("r-1", blob(9).sha256(), &[1]);
    assert_eq!(device.sends(9), Vec::<u32>::new());
    device.wait(Duration::from_secs(300));
    assert_eq!(device.take_payloads("r-1").len(), 0);
}

#[test]
fn pieces_that_cannot_be_read_are_wanted_again_by_whoever_lacks_them() {
    let mut device = offered();
    device.want("r-1", blob(9).sha256(), &[2]);
    let Effect::ReadChunk { round, blob, index } = device.take_effect("ReadChunk") else {
        panic!("a read")
    };
    let result = Err("the disk is damaged".to_owned());
    device.report(Report::ChunkRead { round, sha256: blob.sha256(), index, result });
    device.want("r-1", blob.sha256(), &[2]);
    assert_eq!(device.sends(9), [2]);
}

#[test]
fn a_file_that_is_no_update_to_what_was_asked_is_not_kept() {
    for (field, value, expected) in [
        ("num_samples", "0", "num_samples is 0"),
        ("round_id", "r-2", "it names round r-2"),
        ("proplet_id", "somebody", "the payload names somebody"),
        ("base_model_uri", &uri(3), "global_model_v3"),
        ("encoding", "delta", "was not asked for"),
    ] {
        let mut device = Device::connected(|_| {});
        packed(&mut device, "t-1", "r-1", &[("num_samples", "7"), (field, value)]);
        let error = device.take_result().error.expect("an error");
        assert!(error.contains(expected), "{error} / {expected}");
        assert_eq!((device.kept("updates"), device.pins(blob(9).sha256())), (0, 0));
    }
    let mut device = Device::connected(|_| {});
    packed(&mut device, "t-1", "r-1", &[("num_samples", "7")]);
    packed(&mut device, "t-2", "r-1", &[("num_samples", "7")]);
    assert_eq!(device.take_results()[1].results["update"], json!("duplicate"));
    assert_eq!(device.pins(blob(9).sha256()), 1, "the first one stands");
}

#[test]
fn an_update_that_does_not_fit_a_message_is_packed() {
    let mut device = Device::connected(|config| config.message_bytes_max = 100);
    device.hear(&federated("t-1", 0, "r-1", 0));
    device.hear_model(0);
    device.print("t-1", 0, &update("r-1", 0));
    assert_eq!(device.take_results().len(), 0, "its task is not over");
    assert_eq!(device.agent.slots_taken(), 1);
    let Effect::Pack { task, attempt, update, base } = device.take_effect("Pack") else {
        panic!("a pack")
    };
    assert_eq!((&task, attempt, update.num_samples), (&task_id("t-1"), 0, 7));
    assert!(matches!(base, Some(BaseModel::Here(_))), "the types are those of the base");
    device.pin(blob(9).sha256());
    device.report(Report::Packed { task, attempt, result: Ok(blob(9)) });
    assert_eq!(device.take_result().results["chunks"], json!(40));
    assert_eq!((device.kept("updates"), device.kept("running")), (1, 0));
}

#[test]
fn a_task_that_is_stopped_while_its_update_is_packed_leaves_nothing() {
    let mut device = Device::connected(|config| config.message_bytes_max = 100);
    device.hear(&federated("t-1", 0, "r-1", 0));
    device.hear_model(0);
    device.print("t-1", 0, &update("r-1", 0));
    device.hear(&stop("t-1"));
    assert_eq!(device.take_result().code.expect("a code").0, "cancelled");
    device.pin(blob(9).sha256());
    let (task, attempt) = (task_id("t-1"), 0);
    device.report(Report::Packed { task, attempt, result: Ok(blob(9)) });
    assert_eq!((device.pins(blob(9).sha256()), device.kept("updates")), (0, 0));
    assert_eq!(device.agent.slots_taken(), 0);
}

#[test]
fn a_binary_update_survives_a_restart_too() {
    let mut device = Device::connected(|_| {});
    let tensors = [("w".to_owned(), protocol::Tensor::from_f32(vec![1], &[1.0]).expect("one"))];
    let fields = [("num_samples".to_owned(), "7".to_owned())];
    let file = protocol::tensor::safetensors::write(
        &tensors.into_iter().collect(),
        &fields.into_iter().collect(),
    );
    device.hear(&federated("t-1", 0, "r-1", 0));
    device.hear_model(0);
    let output = GuestOutput { stdout: Bytes::new(), update_file: Some(file), state: None };
    device.finish("t-1", 0, Outcome::Ok(output));
    let said = device.take_payloads("r-1");
    device.crash();
    device.connect();
    assert_eq!(device.take_payloads("r-1"), said);
}

#[test]
fn a_plain_task_runs_on_a_model_in_pieces_too() {
    let mut device = Device::connected(|_| {});
    let mut start = plain("t-1", 0);
    start.env.insert("MODEL_URI".to_owned(), uri(3));
    device.hear(&start);
    device.hear_blob(3, &blob(7));
    device.begun(&blob(7), &[]);
    device.give_all(3, 7);
    device.finished_fetching(&blob(7));
    device.finish("t-1", 0, printed("42"));
    assert_eq!(device.take_result().results, json!(42));
    assert_eq!(device.pins(blob(7).sha256()), 0);
}
