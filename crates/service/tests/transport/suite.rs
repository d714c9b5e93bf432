//! Every implementation keeps these promises.

use std::{collections::BTreeSet, time::Duration};

use protocol::{Filter, ModelLine, Topic};
use service::{Inbound, PromiseId, Transport as _};

use crate::ground::{
    EmbeddedGround, Ground, MemoryGround, MosquittoGround, connected, delivered, envelope,
    listener, lost, message, until,
};

const GRACE: Duration = Duration::from_secs(30);

macro_rules! suite {
    ($($case:ident)*) => {
        mod memory { use super::*; $(#[tokio::test] async fn $case() { super::$case(MemoryGround::start().await).await; })* }
        mod embedded { use super::*; $(#[tokio::test] async fn $case() { super::$case(EmbeddedGround::start().await).await; })* }
        mod mosquitto { use super::*; $(#[tokio::test] async fn $case() { super::$case(MosquittoGround::start().await).await; })* }
    };
}

suite! {
    what_is_said_is_heard_and_reported
    a_retained_message_comes_with_every_listen
    what_was_not_acknowledged_comes_again
    an_acknowledgement_of_an_earlier_connection_is_harmless
    a_session_keeps_what_was_said_while_its_client_was_away
    what_was_queued_while_the_broker_was_away_arrives
    a_vanished_client_has_a_last_will_and_a_closed_one_has_none
    close_hands_over_what_is_queued
    a_large_message_passes
    what_is_unlistened_is_no_longer_heard
}

async fn what_is_said_is_heard_and_reported<G: Ground>(ground: G) {
    let mut hearer = listener(&ground, "hearer", Topic::TaskResults).await;
    let mut speaker = ground.connect("speaker");
    assert!(!connected(&mut speaker).await, "nobody knew this client before");

    speaker.publish(envelope(Topic::TaskResults, "one"), Some(PromiseId(7)));
    assert_eq!(delivered(&mut speaker).await, PromiseId(7));
    assert_eq!(speaker.backlog(), 0);

    let (heard, receipt) = message(&mut hearer).await;
    assert_eq!(heard, envelope(Topic::TaskResults, "one"));
    hearer.ack(receipt);
}

async fn a_retained_message_comes_with_every_listen<G: Ground>(ground: G) {
    let mut speaker = ground.connect("speaker");
    speaker.publish(
        envelope(Topic::ModelLatest { line: ModelLine::default() }, "v1"),
        Some(PromiseId(1)),
    );
    delivered(&mut speaker).await;

    let mut hearer =
        listener(&ground, "hearer", Topic::ModelLatest { line: ModelLine::default() }).await;
    for _ in 0..3 {
        let (heard, receipt) = message(&mut hearer).await;
        assert_eq!(heard, envelope(Topic::ModelLatest { line: ModelLine::default() }, "v1"));
        hearer.ack(receipt);
        hearer.listen(Filter::Exactly(Topic::ModelLatest { line: ModelLine::default() }));
    }
}

async fn what_was_not_acknowledged_comes_again<G: Ground>(ground: G) {
    let mut hearer = listener(&ground, "hearer", Topic::TaskResults).await;
    let mut speaker = ground.connect("speaker");
    for text in ["kept", "forgotten", "last"] {
        speaker.publish(envelope(Topic::TaskResults, text), None);
    }
    connected(&mut speaker).await;
    let (kept, receipt) = message(&mut hearer).await;
    assert_eq!(&kept.payload[..], b"kept");
    hearer.ack(receipt);
    let (forgotten, _) = message(&mut hearer).await;
    assert_eq!(&forgotten.payload[..], b"forgotten");
    let (last, receipt) = message(&mut hearer).await;
    hearer.ack(receipt);
    assert_eq!(&last.payload[..], b"last");
    // An acknowledgement on its way may be lost with the connection; what follows it in the same
    // direction and comes back has overtaken nothing.
    hearer.publish(envelope(Topic::TaskStop, "behind"), Some(PromiseId(1)));
    delivered(&mut hearer).await;

    ground.down();
    lost(&mut hearer).await;
    ground.up();

    assert!(connected(&mut hearer).await, "the session is still there");
    let (again, receipt) = message(&mut hearer).await;
    assert_eq!(&again.payload[..], b"forgotten");
    hearer.ack(receipt);
    speaker.publish(envelope(Topic::TaskResults, "new"), None);
    connected(&mut speaker).await;
    // The broker may repeat what it had not heard the acknowledgement of, or what it had not yet
    // written down of it when it went down: the newest, and nothing else.
    loop {
        let (next, receipt) = message(&mut hearer).await;
        hearer.ack(receipt);
        match &next.payload[..] {
            b"new" => break,
            b"forgotten" | b"last" => {}
            again => panic!("{} was acknowledged long ago", String::from_utf8_lossy(again)),
        }
    }
}

async fn an_acknowledgement_of_an_earlier_connection_is_harmless<G: Ground>(ground: G) {
    let mut hearer = listener(&ground, "hearer", Topic::TaskResults).await;
    let mut speaker = ground.connect("speaker");
    speaker.publish(envelope(Topic::TaskResults, "one"), Some(PromiseId(1)));
    delivered(&mut speaker).await;
    let (_, old) = message(&mut hearer).await;

    for _ in 0..2 {
        ground.down();
        lost(&mut hearer).await;
        ground.up();
        connected(&mut hearer).await;
        let (one, _) = message(&mut hearer).await;
        assert_eq!(&one.payload[..], b"one", "the acknowledgement came too late to count");
        hearer.ack(old.clone());
        hearer.publish(envelope(Topic::TaskStop, "behind"), Some(PromiseId(2)));
        delivered(&mut hearer).await;
    }
}

async fn a_session_keeps_what_was_said_while_its_client_was_away<G: Ground>(ground: G) {
    let hearer = listener(&ground, "hearer", Topic::TaskResults).await;
    hearer.close(GRACE).await;

    let mut speaker = ground.connect("speaker");
    speaker.publish(envelope(Topic::TaskResults, "meanwhile"), Some(PromiseId(1)));
    delivered(&mut speaker).await;

    let mut hearer = ground.connect("hearer");
    assert!(connected(&mut hearer).await);
    let (heard, receipt) = message(&mut hearer).await;
    assert_eq!(heard, envelope(Topic::TaskResults, "meanwhile"));
    hearer.ack(receipt);
}

async fn what_was_queued_while_the_broker_was_away_arrives<G: Ground>(ground: G) {
    const MANY: i64 = 300;
    let mut hearer = listener(&ground, "hearer", Topic::TaskResults).await;
    let mut speaker = ground.connect("speaker");
    connected(&mut speaker).await;
    ground.down();
    lost(&mut speaker).await;
    lost(&mut hearer).await;
    for n in 0..MANY {
        speaker.publish(envelope(Topic::TaskResults, n.to_string()), Some(PromiseId(n)));
    }
    ground.up();

    let mut missing: BTreeSet<_> = (0..MANY).map(PromiseId).collect();
    while !missing.is_empty() {
        missing.remove(&delivered(&mut speaker).await);
    }
    let mut next = 0;
    while next < MANY {
        let (heard, receipt) = message(&mut hearer).await;
        let n: i64 = std::str::from_utf8(&heard.payload).unwrap().parse().unwrap();
        assert!(n <= next, "{n} came before {next}");
        next = next.max(n + 1);
        hearer.ack(receipt);
    }
}

async fn a_vanished_client_has_a_last_will_and_a_closed_one_has_none<G: Ground>(ground: G) {
    let mut hearer = listener(&ground, "hearer", Topic::PropletAlive).await;
    let will = |text: &str| Some(envelope(Topic::PropletAlive, text));
    let mut polite = ground.connect_with("polite", will("polite is gone"));
    connected(&mut polite).await;
    polite.close(GRACE).await;
    let mut rude = ground.connect_with("rude", will("rude is gone"));
    connected(&mut rude).await;
    drop(rude);

    let (heard, _) = message(&mut hearer).await;
    assert_eq!(heard, envelope(Topic::PropletAlive, "rude is gone"));
}

async fn close_hands_over_what_is_queued<G: Ground>(ground: G) {
    let mut hearer = listener(&ground, "hearer", Topic::TaskResults).await;
    // Not even connected yet.
    let mut speaker = ground.connect("speaker");
    for n in 0..100 {
        speaker.publish(envelope(Topic::TaskResults, n.to_string()), None);
    }
    speaker.close(GRACE).await;

    for n in 0..100 {
        let (heard, receipt) = message(&mut hearer).await;
        assert_eq!(heard.payload, n.to_string());
        hearer.ack(receipt);
    }
}

async fn a_large_message_passes<G: Ground>(ground: G) {
    let mut hearer =
        listener(&ground, "hearer", Topic::ModelPublish { line: ModelLine::default() }).await;
    let mut speaker = ground.connect("speaker");
    let model: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
    speaker.publish(
        envelope(Topic::ModelPublish { line: ModelLine::default() }, model.clone()),
        Some(PromiseId(1)),
    );
    delivered(&mut speaker).await;
    let (heard, receipt) = message(&mut hearer).await;
    assert!(heard.payload == model, "{} bytes, other ones", heard.payload.len());
    hearer.ack(receipt);
}

async fn what_is_unlistened_is_no_longer_heard<G: Ground>(ground: G) {
    let mut hearer = listener(&ground, "hearer", Topic::TaskResults).await;
    hearer.listen(Filter::Exactly(Topic::TaskMetrics));
    hearer.unlisten(&Filter::Exactly(Topic::TaskResults));
    // The broker has dealt with what came before this.
    hearer.publish(envelope(Topic::TaskMetrics, "behind"), None);
    until(&mut hearer, |inbound| matches!(inbound, Inbound::Message { .. }).then_some(())).await;

    let mut speaker = ground.connect("speaker");
    speaker.publish(envelope(Topic::TaskResults, "unheard"), None);
    speaker.publish(envelope(Topic::TaskMetrics, "heard"), None);
    connected(&mut speaker).await;
    let (heard, _) = message(&mut hearer).await;
    assert_eq!(heard.topic, Topic::TaskMetrics);
}
