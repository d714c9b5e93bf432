//! Single transfers, step by step.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use bytes::Bytes;
use protocol::{Digest, Manifest, Timestamp, manifest::Format, message::Wants};
use transfer::{
    Assembly, Bitmap, Failure, Offer, OfferRules, Refusal, Rules, Step, WantsRefusal, Way, Window,
};

const CHUNK: usize = 1024;
const START: Timestamp = Timestamp::from_micros(1_000_000);

fn after(ms: u64) -> Timestamp {
    START + Duration::from_millis(ms)
}

fn blob(chunks: usize) -> Bytes {
    (0..chunks * CHUNK - 100).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

fn manifest(blob: &[u8]) -> Manifest {
    Manifest::of(blob, CHUNK as u32, Format::safetensors()).unwrap()
}

fn piece(blob: &Bytes, index: u32) -> Bytes {
    let from = index as usize * CHUNK;
    blob.slice(from..(from + CHUNK).min(blob.len()))
}

fn rules(chunks: usize) -> Rules {
    Rules { window: Window { chunks, bytes: 1 << 20 }, ..Rules::default() }
}

fn assembly(blob: &[u8], way: Way, window: usize) -> Assembly {
    Assembly::new(manifest(blob), way, rules(window))
}

/// Gives a piece and has it stored.
fn take(assembly: &mut Assembly, blob: &Bytes, index: u32, now: Timestamp) -> Vec<Step> {
    let bytes = piece(blob, index);
    let mut steps = assembly.chunk(index, bytes.clone(), now).unwrap();
    assert!(steps.contains(&Step::Store { index, bytes }));
    steps.extend(assembly.stored(index, now));
    steps
}

#[test]
fn a_pulled_blob_is_asked_for_a_window_at_a_time_until_it_is_there() {
    let blob = blob(10);
    let mut assembly = assembly(&blob, Way::Pulled, 4);
    assert_eq!(assembly.deadline(), None, "not begun");
    assert_eq!(assembly.connected(START), [Step::Ask(vec![0, 1, 2, 3])]);
    for index in 0..6 {
        let steps = take(&mut assembly, &blob, index, START);
        assert_eq!(steps[1..], [Step::Ask(vec![index + 4])]);
    }
    for index in [9, 6, 8] {
        assert_eq!(take(&mut assembly, &blob, index, START).len(), 1, "nothing left to ask for");
    }
    assert_eq!(take(&mut assembly, &blob, 7, START)[1..], [Step::Done]);
    assert!(assembly.is_ended());
    assert_eq!(assembly.deadline(), None);
    assert_eq!(assembly.counts().accepted, 10);
}

#[test]
fn a_wide_window_asks_for_several_pieces_in_one_message() {
    let blob = blob(100);
    let mut assembly = assembly(&blob, Way::Pulled, 16);
    assembly.connected(START);
    let asks: Vec<_> = (0..16)
        .flat_map(|index| take(&mut assembly, &blob, index, START))
        .filter_map(|step| if let Step::Ask(asks) = step { Some(asks.len()) } else { None })
        .collect();
    assert_eq!(asks, [4, 4, 4, 4]);
}

#[test]
fn the_window_counts_bytes_too_and_a_large_piece_goes_alone() {
    let blob = blob(10);
    let window = |bytes| Rules { window: Window { chunks: 8, bytes }, ..Rules::default() };
    let mut two = Assembly::new(manifest(&blob), Way::Pulled, window(2500));
    assert_eq!(two.connected(START), [Step::Ask(vec![0, 1])]);
    assert_eq!(take(&mut two, &blob, 0, START)[1..], [Step::Ask(vec![2])]);
    let mut alone = Assembly::new(manifest(&blob), Way::Pulled, window(10));
    assert_eq!(alone.connected(START), [Step::Ask(vec![0])]);
    let wider = alone.resize(Window { chunks: 3, bytes: 1 << 20 }, START);
    assert_eq!(wider, [Step::Ask(vec![1, 2])]);
}

#[test]
fn a_retained_blob_is_listened_to_a_window_at_a_time() {
    let blob = blob(3);
    let mut assembly = assembly(&blob, Way::Retained, 2);
    assert_eq!(assembly.connected(START), [Step::Subscribe(0), Step::Subscribe(1)]);
    let steps = assembly.chunk(1, piece(&blob, 1), START).unwrap();
    assert_eq!(steps[0], Step::Unsubscribe(1));
    assert_eq!(assembly.progress().under_way, 2, "until it is on the disk");
    assert_eq!(assembly.stored(1, START), [Step::Subscribe(2)]);
    take(&mut assembly, &blob, 0, START);
    assert_eq!(take(&mut assembly, &blob, 2, START).last(), Some(&Step::Done));
}

#[test]
fn what_the_disk_holds_is_not_asked_for() {
    let blob = blob(5);
    let mut have = Bitmap::empty(5);
    [0, 2, 3].into_iter().for_each(|index| have.insert(index));
    let mut resumed = assembly(&blob, Way::Pulled, 8);
    resumed.restore(&have);
    assert_eq!(resumed.connected(START), [Step::Ask(vec![1, 4])]);
    let mut complete = assembly(&blob, Way::Pulled, 8);
    complete.restore(&Bitmap::full(5));
    assert_eq!(complete.connected(START), [Step::Done]);
    assert_eq!(complete.connected(START), [], "said once");
}

#[test]
fn every_piece_that_is_not_taken_is_counted_by_reason() {
    let blob = blob(4);
    let mut assembly = assembly(&blob, Way::Pulled, 2);
    let refused = |assembly: &mut Assembly, index, bytes: &[u8]| {
        assembly.chunk(index, Bytes::copy_from_slice(bytes), START).unwrap_err()
    };
    let good = piece(&blob, 0);
    assert_eq!(refused(&mut assembly, 0, &good), Refusal::Unasked, "not begun");
    assembly.connected(START);
    assert_eq!(refused(&mut assembly, 4, &good), Refusal::OutOfRange);
    assert_eq!(refused(&mut assembly, u32::MAX, &good), Refusal::OutOfRange);
    assert_eq!(refused(&mut assembly, 3, &piece(&blob, 3)), Refusal::Unasked);
    assert_eq!(refused(&mut assembly, 0, b""), Refusal::Empty);
    assert_eq!(refused(&mut assembly, 0, &good[1..]), Refusal::Length);
    assert_eq!(refused(&mut assembly, 0, &vec![0; CHUNK + 1]), Refusal::Length);
    assert_eq!(refused(&mut assembly, 1, &good), Refusal::Corrupt, "another piece's bytes");
    assembly.chunk(0, good.clone(), START).unwrap();
    assert_eq!(refused(&mut assembly, 0, &good), Refusal::Repeated, "being stored");
    assembly.stored(0, START);
    assert_eq!(refused(&mut assembly, 0, &good), Refusal::Repeated, "stored");
    assembly.abandon();
    assert_eq!(refused(&mut assembly, 1, &piece(&blob, 1)), Refusal::Ended);
    let counts: Vec<_> = assembly.counts().refused.iter().map(|(why, n)| (*why, *n)).collect();
    let expected = [
        (Refusal::OutOfRange, 2),
        (Refusal::Repeated, 2),
        (Refusal::Unasked, 2),
        (Refusal::Empty, 1),
        (Refusal::Length, 2),
        (Refusal::Corrupt, 1),
        (Refusal::Ended, 1),
    ];
    assert_eq!(counts, expected);
    assert_eq!(expected.len(), Refusal::ALL.len());
}

#[test]
fn a_damaged_piece_is_asked_for_again_ever_more_slowly() {
    let blob = blob(1);
    let mut assembly = assembly(&blob, Way::Pulled, 1);
    assembly.connected(START);
    let mut now = START;
    let mut pauses = vec![];
    for _ in 0..4 {
        // However many damaged ones come, one ask follows.
        for _ in 0..3 {
            assembly.chunk(0, Bytes::from_static(&[0; CHUNK - 100]), now).unwrap_err();
        }
        let due = assembly.deadline().unwrap();
        pauses.push(due.since(now).as_millis());
        now = due;
        assert_eq!(assembly.tick(now), [Step::Ask(vec![0])]);
    }
    assert_eq!(pauses, [500, 1000, 2000, 4000]);
    assert_eq!(take(&mut assembly, &blob, 0, now).last(), Some(&Step::Done));
}

#[test]
fn silence_is_answered_with_another_ask_then_patience_grows() {
    let blob = blob(2);
    let mut assembly = assembly(&blob, Way::Pulled, 2);
    assembly.connected(START);
    assert_eq!(assembly.tick(after(9_999)), []);
    assert_eq!(assembly.tick(after(10_000)), [Step::Ask(vec![0, 1])]);
    assert_eq!(assembly.tick(after(29_999)), []);
    assert_eq!(assembly.tick(after(30_000)), [Step::Ask(vec![0, 1])]);
    assert_eq!(assembly.counts().repeated_asks, 4);
    // A slow sender is not lost: as long as others come, a piece may be behind them.
    take(&mut assembly, &blob, 0, after(69_000));
    assert_eq!(assembly.tick(after(70_000)), []);
    assert_eq!(assembly.deadline(), Some(after(109_000)));
}

#[test]
fn a_piece_that_a_whole_window_has_overtaken_is_lost() {
    let blob = blob(20);
    let mut assembly = assembly(&blob, Way::Pulled, 4);
    assembly.connected(START);
    for index in 1..5 {
        assert_eq!(assembly.tick(START), []);
        take(&mut assembly, &blob, index, START);
    }
    assert_eq!(assembly.tick(START), [Step::Ask(vec![0])]);
    assert_eq!(assembly.tick(START), [], "once");
}

#[test]
fn where_pieces_are_retained_silence_is_told_to_the_holder() {
    let blob = blob(1);
    let mut assembly = assembly(&blob, Way::Retained, 2);
    assembly.connected(START);
    assert_eq!(assembly.tick(after(10_000)), [Step::Subscribe(0), Step::Ask(vec![0])]);
}

#[test]
fn a_transfer_that_gets_nowhere_fails_and_leaves_nothing_behind() {
    let blob = blob(3);
    let mut assembly = assembly(&blob, Way::Retained, 2);
    assembly.connected(START);
    take(&mut assembly, &blob, 0, after(1000));
    let end = after(601_000);
    let reason = Failure::Stalled { after_s: 600, have: 1, count: 3 };
    let steps = assembly.tick(end);
    assert_eq!(steps, [Step::Unsubscribe(1), Step::Unsubscribe(2), Step::Failed { reason }]);
    assert_eq!(reason.to_string(), "nothing has come for 600 s; 1 of 3 chunks are there");
    assert_eq!((assembly.tick(end), assembly.deadline()), (vec![], None));
    assert_eq!(assembly.connected(end), []);
}

#[test]
fn without_a_connection_nothing_is_concluded_and_soon_after_it_is_asked_again() {
    let blob = blob(3);
    let mut assembly = assembly(&blob, Way::Pulled, 2);
    assembly.connected(START);
    assembly.disconnected();
    assert_eq!(assembly.deadline(), None);
    assert_eq!(assembly.tick(after(3_600_000)), []);
    // What was on its way still counts.
    assert_eq!(take(&mut assembly, &blob, 1, after(3_600_000)).len(), 1);
    let back = after(3_700_000);
    assert_eq!(assembly.connected(back), [Step::Ask(vec![2])]);
    let due = assembly.deadline().unwrap();
    assert_eq!(due, back + Duration::from_secs(1));
    assert_eq!(assembly.tick(due), [Step::Ask(vec![0])]);
}

#[test]
fn a_piece_that_the_disk_refuses_is_fetched_again() {
    let blob = blob(1);
    for way in [Way::Pulled, Way::Retained] {
        let mut assembly = assembly(&blob, way, 2);
        assembly.connected(START);
        assembly.chunk(0, piece(&blob, 0), START).unwrap();
        assembly.store_failed(0, START);
        assert_eq!(assembly.stored(0, START), [], "it is not");
        let again = assembly.tick(assembly.deadline().unwrap());
        match way {
            Way::Pulled => assert_eq!(again, [Step::Ask(vec![0])]),
            Way::Retained => assert_eq!(again, [Step::Subscribe(0), Step::Ask(vec![0])]),
        }
        assert_eq!(take(&mut assembly, &blob, 0, START).last(), Some(&Step::Done));
    }
}

fn wants(manifest: &Manifest, indexes: impl IntoIterator<Item = u32>) -> Wants {
    Wants { sha256: manifest.sha256(), indexes: indexes.into_iter().collect() }
}

#[test]
fn an_offer_reads_a_few_pieces_at_a_time_and_each_once() {
    let manifest = manifest(&blob(10));
    let mut offer = Offer::new(manifest.clone(), OfferRules { reads_max: 2, ..Default::default() });
    assert_eq!(offer.wanted(&wants(&manifest, [1, 2, 5]), START), Ok(vec![1, 2]));
    assert_eq!(offer.wanted(&wants(&manifest, [2, 5, 6]), START), Ok(vec![]));
    assert_eq!(offer.sent(1, START), [5]);
    assert_eq!(offer.failed(2), [6]);
    assert!(offer.sent(7, START).is_empty(), "nobody read that");
    assert!(offer.sent(5, START).is_empty() && offer.sent(6, START).is_empty());
    assert!(offer.is_idle());
    // Just sent: it is still on its way. The one that could not be read is read.
    assert_eq!(offer.wanted(&wants(&manifest, [1, 2, 5]), after(249)), Ok(vec![2]));
    offer.sent(2, after(249));
    assert_eq!(offer.wanted(&wants(&manifest, [1]), after(250)), Ok(vec![1]));
    let counts = offer.counts();
    assert_eq!((counts.sent, counts.repeated, counts.failed), (4, 4, 1));
}

#[test]
fn an_offer_answers_wants_of_its_blob_only() {
    let manifest = manifest(&blob(3));
    let mut offer = Offer::new(manifest.clone(), OfferRules::default());
    let foreign = Wants { sha256: Digest::of(b"other"), indexes: [0].into() };
    let offered = manifest.sha256();
    let refusal = WantsRefusal::Foreign { wanted: foreign.sha256, offered };
    assert_eq!(offer.wanted(&foreign, START), Err(refusal));
    let refusal = WantsRefusal::OutOfRange { index: 3, count: 3 };
    assert_eq!(offer.wanted(&wants(&manifest, [0, 3]), START), Err(refusal));
    assert!(offer.is_idle());
    assert_eq!(offer.counts().refused, 2);
}

#[test]
fn everything_is_sent_in_order() {
    let manifest = manifest(&blob(7));
    let mut offer = Offer::new(manifest, OfferRules { reads_max: 3, ..Default::default() });
    let mut reads = offer.everything(START);
    let mut sent = vec![];
    while let Some(index) = reads.first().copied() {
        reads.remove(0);
        reads.extend(offer.sent(index, START));
        assert!(reads.len() <= 3);
        sent.push(index);
    }
    assert_eq!(sent, [0, 1, 2, 3, 4, 5, 6]);
    assert!(offer.is_idle());
}

#[test]
fn a_bitmap_counts_each_piece_once() {
    let mut bitmap = Bitmap::empty(130);
    for index in [0, 63, 64, 129, 129, 130, u32::MAX] {
        bitmap.insert(index);
    }
    assert_eq!((bitmap.count(), bitmap.len()), (4, 130));
    assert!(bitmap.contains(129) && !bitmap.contains(130) && !bitmap.contains(1));
    bitmap.remove(63);
    bitmap.remove(62);
    assert_eq!(bitmap.missing().count(), 127);
    assert!(!bitmap.is_full() && Bitmap::full(130).is_full());
}
