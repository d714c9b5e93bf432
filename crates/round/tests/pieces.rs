//! Updates and models that are too large for one message: offered, fetched piece by piece, checked,
//! and only then counted; and every way in which that goes wrong.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "these are tests")]

#[allow(unreachable_pub, clippy::wildcard_enum_match_arm, reason = "a module of tests")]
mod story;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use protocol::{
    Digest, Envelope, Filter, Input, Letter as _, Manifest, ModelLine, ModelUri, ModelVersion,
    Output, Rejection, Topic,
    manifest::Format,
    message::{
        ModelBlob, ModelPublishWants, RoundStart, UpdateOffer, UpdateWants, Wants, is_blob_form,
    },
    tensor::safetensors,
};
use round::{Beside, Effect, Kept, Made, Note, Objection, Report, Rules};
use story::*;
use transfer::Bitmap;

const CHUNK: u32 = 1024;

/// A model of some pieces: three thousand numbers.
fn file(fill: f64) -> Bytes {
    safetensors::write(&tensors(&[fill; 3000]), &BTreeMap::new())
}

fn manifest(file: &Bytes) -> Manifest {
    Manifest::of(file, CHUNK, Format::safetensors()).unwrap()
}

fn piece(file: &Bytes, index: u32) -> Bytes {
    let start = index as usize * CHUNK as usize;
    file.slice(start..(start + CHUNK as usize).min(file.len()))
}

fn offer(proplet: &str, file: &Bytes) -> Envelope {
    let offer = UpdateOffer {
        round_id: id("r"),
        proplet_id: id(proplet),
        base_model_uri: ModelUri::global(ModelVersion(0)),
        num_samples: 10,
        metrics: BTreeMap::from([("loss".to_owned(), 0.5)]),
        blob: manifest(file),
    };
    let payload = serde_json::to_vec(&offer).unwrap();
    assert!(is_blob_form(&payload));
    forwarded("r", proplet, &payload)
}

fn chunk(proplet: &str, file: &Bytes, index: u32) -> Envelope {
    let topic = Topic::UpdateChunk { round: id("r"), proplet: id(proplet), index };
    Envelope { topic, payload: piece(file, index) }
}

/// The blob model 0, shown in pieces.
fn opened(participants: &[&str], k: usize) -> Story {
    let mut story = Story::new(Rules::default());
    story.hears(start("r", participants, k).seal());
    let base = file(0.0);
    let version = ModelVersion(0);
    let out =
        story.hears(ModelBlob { version, blob: manifest(&base) }.shown(&ModelLine::default()));
    let head = Filter::Exactly(Topic::ModelChunk { uri: ModelUri::global(version), index: 0 });
    assert!(out.contains(&Output::Listen(head.clone())));
    let topic = Topic::ModelChunk { uri: ModelUri::global(version), index: 0 };
    let spoiled = Envelope { topic: topic.clone(), payload: piece(&file(1.0), 1) };
    assert!(!story.hears(spoiled).contains(&Output::Unlisten(head.clone())));
    let out = story.hears(Envelope { topic, payload: piece(&base, 0) });
    assert!(out.contains(&Output::Unlisten(head)), "the first piece says what the model is");
    story
}

fn effects(out: &Outputs) -> Vec<Effect> {
    let effect = |output: &Output<Effect>| match output {
        Output::Effect(Effect::Note(_)) => None,
        Output::Effect(effect) => Some(effect.clone()),
        _ => None,
    };
    out.iter().filter_map(effect).collect()
}

fn wanted(out: &Outputs, proplet: &str) -> Vec<u32> {
    let topic = Topic::UpdateWants { round: id("r"), proplet: id(proplet) };
    let wants = said(out).into_iter().filter(|said| said.topic == topic);
    let read = |said: Envelope| UpdateWants::read(id("r"), id(proplet), &said.payload).unwrap();
    wants.flat_map(|said| read(said).wants.indexes).collect()
}

/// The shell and an honest proplet until nothing is wanted any more; returns the last outputs.
fn fetch(story: &mut Story, proplet: &str, file: &Bytes, mut out: Outputs) -> Outputs {
    let sha256 = manifest(file).sha256();
    loop {
        let mut inputs: Vec<Input<round::News, Report>> = vec![];
        for effect in effects(&out) {
            let report = match effect {
                Effect::Begin(blob) => {
                    Report::Begun { sha256, have: Ok(Bitmap::empty(blob.count())) }
                }
                Effect::Store { blob, index, bytes } => {
                    assert_eq!(blob.check(index, &bytes), Ok(()));
                    Report::Stored { sha256, index, result: Ok(()) }
                }
                Effect::Finish { .. } => return out,
                other => panic!("{other:?}"),
            };
            inputs.push(Input::Report(report));
        }
        for index in wanted(&out, proplet) {
            inputs.push(Input::News(round::News::try_from(chunk(proplet, file, index)).unwrap()));
        }
        assert!(!inputs.is_empty(), "{out:#?}");
        out = inputs.into_iter().flat_map(|input| story.tell(input)).collect();
    }
}

#[test]
fn an_update_in_pieces_is_counted_when_the_whole_was_checked() {
    let mut story = opened(&["a", "b"], 2);
    let theirs = file(2.0);
    let out = story.hears(offer("a", &theirs));
    assert_eq!(verdict(&out), None, "nothing is said before it is here");
    let out = fetch(&mut story, "a", &theirs, out);
    assert_eq!(verdict(&out), None);
    let sha256 = manifest(&theirs).sha256();
    let out = story.tell(Input::Report(Report::Received { sha256, result: Ok(()) }));
    assert_eq!(verdict(&out), ACCEPTED);
    let again = story.hears(offer("a", &theirs));
    assert_eq!(verdict(&again), ACCEPTED, "said again, answered again");
    assert!(effects(&again).is_empty());

    let out = story.restarts();
    assert!(effects(&out).contains(&Effect::Hold(vec![sha256])), "it is still needed");
    let mine = file(4.0);
    let out = story.hears(offer("b", &mine));
    fetch(&mut story, "b", &mine, out);
    let sha256 = manifest(&mine).sha256();
    let out = story.tell(Input::Report(Report::Received { sha256, result: Ok(()) }));
    let job = job(&out);
    assert!(job.members.iter().all(|member| matches!(member.values, Kept::Stored(_))));
}

#[test]
fn what_is_known_to_be_wrong_is_refused_before_a_byte_is_fetched() {
    let cases = [
        (Rejection::Shape, file(1.0).slice(..1000)),
        (Rejection::Shape, Bytes::from(vec![0; 2 << 20])),
    ];
    for (reason, file) in cases {
        let mut story = opened(&["a"], 1);
        let out = story.hears(offer("a", &file));
        assert_eq!(verdict(&out), rejected(reason));
        assert!(effects(&out).is_empty());
    }
    let mut story = Story::new(Rules { blob_len_max: 1 << 20, ..Rules::default() });
    story.hears(start("r", &["a"], 1).seal());
    story.hears(base(0));
    let out = story.hears(offer("a", &Bytes::from(vec![0; 2 << 20])));
    assert_eq!(verdict(&out), rejected(Rejection::TooLarge));
    let mut story = opened(&["a"], 1);
    assert_eq!(verdict(&story.hears(offer("x", &file(1.0)))), rejected(Rejection::Stranger));
}

#[test]
fn a_file_that_is_no_update_is_rejected_with_its_reason() {
    for reason in [Rejection::Shape, Rejection::NotFinite, Rejection::Malformed] {
        let mut story = opened(&["a"], 1);
        let theirs = file(2.0);
        let out = story.hears(offer("a", &theirs));
        fetch(&mut story, "a", &theirs, out);
        let result = Err(Objection::new(reason, "it is not one"));
        let sha256 = manifest(&theirs).sha256();
        let out = story.tell(Input::Report(Report::Received { sha256, result }));
        assert_eq!(verdict(&out), rejected(reason));
        assert!(jobs(&out).is_empty(), "the round goes on");
    }
}

#[test]
fn foreign_spoiled_and_unasked_pieces_change_nothing() {
    let mut story = opened(&["a"], 1);
    let (theirs, other) = (file(2.0), file(3.0));
    assert!(story.hears(chunk("a", &theirs, 0)).is_empty(), "nobody has offered anything");
    let out = story.hears(offer("a", &theirs));
    let begun = Report::Begun {
        sha256: manifest(&theirs).sha256(),
        have: Ok(Bitmap::empty(manifest(&theirs).count())),
    };
    assert_eq!(effects(&out), [Effect::Begin(manifest(&theirs))]);
    let out = story.tell(Input::Report(begun));
    let first = wanted(&out, "a");
    assert!(!first.is_empty() && first.len() < manifest(&theirs).count() as usize, "a window");
    for envelope in [
        chunk("a", &other, 1),
        chunk("b", &theirs, 0),
        chunk("a", &theirs, manifest(&theirs).count() - 1),
    ] {
        assert!(effects(&story.hears(envelope)).is_empty());
    }
    let out = story.hears(chunk("a", &theirs, 0));
    assert!(matches!(effects(&out)[..], [Effect::Store { index: 0, .. }]));
    assert!(effects(&story.hears(chunk("a", &theirs, 0))).is_empty(), "once is enough");
}

#[test]
fn pieces_that_do_not_come_are_asked_for_again() {
    let mut story = opened(&["a"], 1);
    let theirs = file(2.0);
    story.hears(offer("a", &theirs));
    let have = Ok(Bitmap::empty(manifest(&theirs).count()));
    let sha256 = manifest(&theirs).sha256();
    let asked = wanted(&story.tell(Input::Report(Report::Begun { sha256, have })), "a");
    let mut again = vec![];
    for _ in 0..20 {
        again.extend(wanted(&story.passes(Duration::from_secs(1)), "a"));
    }
    assert!(asked.iter().all(|index| again.contains(index)), "{asked:?} {again:?}");
}

#[test]
fn a_round_that_closes_ends_the_transfer() {
    let mut story = opened(&["a", "b"], 2);
    let theirs = file(2.0);
    let out = story.hears(offer("b", &theirs));
    fetch(&mut story, "b", &theirs, out);
    let out = story.passes(Duration::from_secs(30));
    assert!(verdicts(&out).iter().any(|(_, proplet, _)| proplet.as_str() == "b"));
    assert!(effects(&out).contains(&Effect::Abandon(manifest(&theirs))));
    let sha256 = manifest(&theirs).sha256();
    let late = story.tell(Input::Report(Report::Received { sha256, result: Ok(()) }));
    assert_eq!(effects(&late), [Effect::Drop(sha256)], "nobody needs it");
}

/// One round of a session that does not wait; its first one is `r`.
fn of_stream(round: &str, participants: &[&str], version: u64) -> Envelope {
    let start = RoundStart {
        session: Some(id("s")),
        staleness_max: Some(3),
        model_uri: ModelUri::global(ModelVersion(version)),
        ..start(round, participants, 1)
    };
    start.seal()
}

/// Round `r` has ended, and the model server shows what it made; all that was said and wanted.
fn ends(story: &mut Story) -> Outputs {
    let mut all = story.hears(sent(&update("r", "a")));
    all.extend(story.aggregates(&job(&all)));
    let digest = Digest::of(&models(&all)[0]);
    all.extend(story.hears(latest(1, digest)));
    letter(&all, &complete());
    all
}

/// The next round counts what waits on the disk, of which no piece is asked for.
fn counts_from_disk(story: &mut Story, blob: &Manifest) {
    let out = story.hears(of_stream("r2", &["a"], 1));
    assert_eq!(effects(&out), [Effect::Begin(blob.clone())]);
    let (sha256, have) = (blob.sha256(), Ok(Bitmap::full(blob.count())));
    let out = story.tell(Input::Report(Report::Begun { sha256, have }));
    assert_eq!(wanted(&out, "b"), [0; 0]);
    assert!(matches!(effects(&out)[..], [Effect::Finish { .. }]));
    let out = story.tell(Input::Report(Report::Received { sha256, result: Ok(()) }));
    assert_eq!(verdict(&out), ACCEPTED);
    assert_eq!(jobs(&out).len(), 1, "it counts in this round");
}

/// Round `r` of a session that does not wait, and an update of `b` that has begun to come.
fn offered(theirs: &Bytes) -> Story {
    let mut story = Story::new(Rules::default());
    story.hears(of_stream("r", &["a", "b"], 0));
    story.hears(base(0));
    let blob = manifest(theirs);
    assert_eq!(effects(&story.hears(offer("b", theirs))), [Effect::Begin(blob.clone())]);
    let (sha256, have) = (blob.sha256(), Ok(Bitmap::empty(blob.count())));
    let out = story.tell(Input::Report(Report::Begun { sha256, have }));
    assert_eq!(wanted(&out, "b"), [0]);
    story
}

fn short() -> Bytes {
    safetensors::write(&tensors(&[2.0; 3]), &BTreeMap::new())
}

#[test]
fn a_late_update_that_is_here_as_a_whole_waits_on_the_disk_for_a_round() {
    let theirs = short();
    let mut story = offered(&theirs);
    ends(&mut story);
    story.hears(chunk("b", &theirs, 0));
    let (blob, result) = (manifest(&theirs), Ok(()));
    let stored = Report::Stored { sha256: blob.sha256(), index: 0, result };
    let out = story.tell(Input::Report(stored));
    assert_eq!(verdict(&out), None);
    assert_eq!(effects(&out), [Effect::Abandon(blob.clone())], "others may come meanwhile");
    assert!(effects(&story.hears(offer("b", &theirs))).is_empty(), "it is known");
    counts_from_disk(&mut story, &blob);
}

#[test]
fn a_late_update_that_is_checked_while_its_round_closes_stays_on_the_disk() {
    let theirs = short();
    let mut story = offered(&theirs);
    story.hears(chunk("b", &theirs, 0));
    let (blob, result) = (manifest(&theirs), Ok(()));
    let (sha256, index) = (blob.sha256(), 0);
    let out = story.tell(Input::Report(Report::Stored { sha256, index, result }));
    assert!(matches!(effects(&out)[..], [Effect::Finish { .. }]));
    ends(&mut story);
    let out = story.tell(Input::Report(Report::Received { sha256, result: Ok(()) }));
    assert_eq!(verdict(&out), None);
    assert_eq!(effects(&out), [Effect::Unpin(sha256)], "it may be removed, and need not be");
    counts_from_disk(&mut story, &blob);
}

#[test]
fn no_room_on_the_disk_is_no_verdict() {
    let mut story = opened(&["a"], 1);
    let theirs = file(2.0);
    story.hears(offer("a", &theirs));
    let sha256 = manifest(&theirs).sha256();
    let full = Report::Begun { sha256, have: Err("disk full".to_owned()) };
    let out = story.tell(Input::Report(full));
    assert_eq!(verdict(&out), None);
    assert!(matches!(notes(&out)[..], [Note::ReceptionFailed { .. }]));
    let out = story.hears(offer("a", &theirs));
    assert_eq!(effects(&out), [Effect::Begin(manifest(&theirs))], "it is tried again");
}

#[test]
fn a_model_in_pieces_is_handed_over_and_survives_a_restart() {
    let mut story = opened(&["a"], 1);
    let theirs = file(2.0);
    let out = story.hears(offer("a", &theirs));
    fetch(&mut story, "a", &theirs, out);
    let sha256 = manifest(&theirs).sha256();
    let out = story.tell(Input::Report(Report::Received { sha256, result: Ok(()) }));
    let (made, schema) = (file(2.5), job(&out).schema);
    let model = Made::Stored { blob: manifest(&made), schema };
    let out = story.tell(Input::Report(Report::Aggregated {
        round: id("r"),
        model,
        beside: Beside::default(),
    }));
    let published: ModelBlob = serde_json::from_slice(&models(&out)[0]).unwrap();
    assert_eq!(published, ModelBlob { version: ModelVersion(1), blob: manifest(&made) });
    assert!(effects(&out).contains(&Effect::Drop(sha256)), "the updates are in the model");

    let out = story.restarts();
    assert!(effects(&out).contains(&Effect::Hold(vec![manifest(&made).sha256()])));
    assert_eq!(models(&out).len(), 1, "said again");
    let wants = Wants { sha256: manifest(&made).sha256(), indexes: [0, 2].into() };
    let wants = ModelPublishWants { line: ModelLine::default(), version: ModelVersion(1), wants };
    let out = story.hears(wants.seal());
    let blob = manifest(&made);
    assert_eq!(effects(&out), [0, 2].map(|index| Effect::ReadChunk { blob: blob.clone(), index }));
    let sha256 = blob.sha256();
    let read = Report::ChunkRead { sha256, index: 2, result: Ok(piece(&made, 2)) };
    let out = story.tell(Input::Report(read));
    let topic = Topic::ModelPublishChunk { uri: ModelUri::global(ModelVersion(1)), index: 2 };
    assert_eq!(said(&out), [Envelope { topic, payload: piece(&made, 2) }]);
    let foreign = Wants { sha256: Digest::of(b"other"), indexes: [0].into() };
    let foreign =
        ModelPublishWants { line: ModelLine::default(), version: ModelVersion(1), wants: foreign };
    assert!(effects(&story.hears(foreign.seal())).is_empty());

    let out = story.hears(latest(1, sha256));
    assert_eq!(letter(&out, &complete())["model_version"], 1);
    assert!(effects(&out).contains(&Effect::Drop(sha256)), "the model server has it");
}
