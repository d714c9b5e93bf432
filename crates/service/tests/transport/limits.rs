//! Brokers that take small messages only: they are asked, and what fits them passes.

use std::time::Duration;

use protocol::{Filter, ModelLine, ModelUri, ModelVersion, Topic};
use service::{
    PromiseId, Transport as _,
    settings::Limits,
    transport::mqtt::{Mqtt, ProbeError, probe},
};
use tokio::{io::AsyncReadExt as _, net::TcpListener};

use crate::{
    ground::{config, connected, delivered, embedded, envelope, message},
    mosquitto::Mosquitto,
};

const LIMIT: u32 = 128 << 10;

fn chunk_topic() -> Topic {
    Topic::ModelPublishChunk { uri: ModelUri::global(ModelVersion(u64::MAX)), index: 4095 }
}

/// The longest message and the longest piece reach whoever listens, and the gate opens again.
async fn what_fits_passes(to: std::net::SocketAddr) {
    let limits = Limits::of(LIMIT);
    let mut hearer = Mqtt::connect(config(to, "hearer"));
    hearer.listen(Filter::Exactly(Topic::ModelPublish { line: ModelLine::default() }));
    hearer.listen(Filter::AnyModelPublishChunk);
    connected(&mut hearer).await;
    let mut speaker = Mqtt::connect(config(to, "speaker"));
    connected(&mut speaker).await;
    let gate = speaker.gate();
    let lens = [limits.message_bytes_max, limits.chunk_bytes as usize];
    let topics = [Topic::ModelPublish { line: ModelLine::default() }, chunk_topic()];
    for (n, (topic, len)) in topics.into_iter().zip(lens).enumerate() {
        let promise = PromiseId(i64::try_from(n).unwrap());
        speaker.publish(envelope(topic.clone(), vec![7; len]), Some(promise));
        assert_eq!(gate.bytes() > 0, topic.is_chunk());
        let (heard, receipt) = message(&mut hearer).await;
        assert_eq!((heard.topic, heard.payload.len()), (topic, len));
        hearer.ack(receipt);
        assert_eq!(delivered(&mut speaker).await, promise);
        assert_eq!(gate.bytes(), 0);
    }
    assert_eq!((speaker.counts().unsendable, speaker.counts().losses), (0, 0));
}

#[tokio::test]
async fn mosquitto_says_how_large_a_packet_it_takes() {
    let server = Mosquitto::start(&format!("allow_anonymous true\nmax_packet_size {LIMIT}"));
    assert_eq!(probe(&config(server.address, "asker")).await.unwrap(), Some(LIMIT));
    what_fits_passes(server.address).await;
}

/// It sets no limit of packets, says nothing, and swallows with an acknowledgement what is larger:
/// that is why there is a setting, and why it is not `auto` by default.
#[tokio::test]
async fn mosquitto_does_not_say_how_large_a_message_it_takes() {
    let server = Mosquitto::start(&format!("allow_anonymous true\nmessage_size_limit {LIMIT}"));
    assert_eq!(probe(&config(server.address, "asker")).await.unwrap(), None);
    what_fits_passes(server.address).await;

    let mut hearer = Mqtt::connect(config(server.address, "witness"));
    hearer.listen(Filter::Exactly(Topic::ModelPublish { line: ModelLine::default() }));
    connected(&mut hearer).await;
    let mut speaker = Mqtt::connect(config(server.address, "shouter"));
    speaker.publish(
        envelope(Topic::ModelPublish { line: ModelLine::default() }, vec![0; LIMIT as usize + 1]),
        Some(PromiseId(1)),
    );
    speaker.publish(
        envelope(Topic::ModelPublish { line: ModelLine::default() }, "next"),
        Some(PromiseId(2)),
    );
    assert_eq!(delivered(&mut speaker).await, PromiseId(1), "so it says");
    assert_eq!(message(&mut hearer).await.0.payload, "next");
}

#[tokio::test]
async fn the_embedded_broker_says_how_large_a_packet_it_takes() {
    let running = embedded(LIMIT as usize).await;
    assert_eq!(probe(&config(running.address(), "asker")).await.unwrap(), Some(LIMIT));
    what_fits_passes(running.address()).await;
    running.stop().await;
}

#[tokio::test]
async fn asking_throws_nobody_out() {
    let running = embedded(broker::PACKET_BYTES_MAX).await;
    let config = config(running.address(), "same");
    let mut service = Mqtt::connect(config.clone());
    connected(&mut service).await;
    for _ in 0..3 {
        probe(&config).await.unwrap();
    }
    service.publish(envelope(Topic::TaskResults, "x"), Some(PromiseId(1)));
    assert_eq!(delivered(&mut service).await, PromiseId(1));
    assert_eq!(service.counts().losses, 0);
    running.stop().await;
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_not_waited_for_long() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let silent = async {
        let (mut held, _) = listener.accept().await.unwrap();
        let mut sink = vec![];
        held.read_to_end(&mut sink).await.unwrap();
        sink
    };
    let config = config(address, "asker");
    let (asked, heard) = tokio::join!(probe(&config), silent);
    assert!(matches!(asked, Err(ProbeError::Silence | ProbeError::Refused(_))), "{asked:?}");
    assert_eq!(heard[8], 5, "it was asked in MQTT 5");
    drop(listener);
    let gone = tokio::time::timeout(Duration::from_secs(60), probe(&config)).await;
    assert!(matches!(gone, Ok(Err(ProbeError::Refused(_)))), "{gone:?}");
}
