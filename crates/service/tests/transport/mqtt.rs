//! What only a real connection can do, or suffer.

use std::{net::SocketAddr, time::Duration};

use protocol::{Filter, ModelLine, Topic};
use service::{
    Inbound, PromiseId, Transport as _,
    transport::mqtt::{Config, Credentials, Mqtt, SessionKind},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    ground::{config, connected, delivered, embedded, envelope, lost, message, until},
    mosquitto::Mosquitto,
};

#[tokio::test]
async fn a_broker_that_is_not_there_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut early = Mqtt::connect(config(address, "early"));
    early.listen(Filter::Exactly(Topic::TaskResults));
    early.publish(envelope(Topic::TaskResults, "early"), Some(PromiseId(1)));
    // Two attempts that lead nowhere, then a broker in the same place.
    for _ in 0..2 {
        drop(listener.accept().await.unwrap());
    }
    drop(listener);
    let config = broker::BrokerConfig { listen: address, ..Default::default() };
    let running = broker::start(config).await.unwrap();

    assert!(!connected(&mut early).await);
    assert_eq!(delivered(&mut early).await, PromiseId(1));
    early.close(Duration::from_secs(10)).await;
    running.stop().await;
}

#[tokio::test]
async fn foreign_topics_and_large_payloads_stop_here_except_for_updates() {
    let running = embedded(broker::PACKET_BYTES_MAX).await;
    let update = Topic::RoundUpdate { round: "r".parse().unwrap(), proplet: "p".parse().unwrap() };
    let mut hearer =
        Mqtt::connect(Config { payload_bytes_max: 1000, ..config(running.address(), "hearer") });
    hearer.listen(Filter::AnyModel);
    hearer.listen(Filter::AnyUpdate);
    connected(&mut hearer).await;
    let mut speaker = Mqtt::connect(config(running.address(), "speaker"));
    speaker.publish(
        envelope(Topic::ModelPublish { line: ModelLine::default() }, vec![b'x'; 1001]),
        Some(PromiseId(1)),
    );
    delivered(&mut speaker).await;
    let latest = config(running.address(), "x")
        .namespace
        .render(&Topic::ModelLatest { line: ModelLine::default() });
    for foreign in ["no-version", "global_model_v007"] {
        shout(running.address(), &latest.replace("latest", foreign)).await;
    }
    speaker.publish(envelope(update.clone(), vec![b'x'; 5000]), Some(PromiseId(2)));
    delivered(&mut speaker).await;

    let (heard, receipt) = message(&mut hearer).await;
    assert_eq!((heard.topic, heard.payload.len()), (update, 5000));
    hearer.ack(receipt);
    let counts = hearer.counts();
    assert_eq!((counts.received, counts.foreign, counts.oversize), (4, 2, 1), "{counts:?}");
    // They were acknowledged, so they do not come again.
    hearer.close(Duration::from_secs(10)).await;
    let mut hearer = Mqtt::connect(config(running.address(), "hearer"));
    hearer.listen(Filter::AnyModel);
    assert!(connected(&mut hearer).await);
    speaker.publish(envelope(Topic::ModelPublish { line: ModelLine::default() }, "small"), None);
    let (heard, _) = message(&mut hearer).await;
    assert_eq!(
        (heard.topic, heard.payload.len()),
        (Topic::ModelPublish { line: ModelLine::default() }, 5)
    );
    assert_eq!(hearer.counts().received, 1);
    running.stop().await;
}

#[tokio::test]
async fn a_message_over_the_brokers_limit_does_not_hold_up_the_others() {
    let running = embedded(100_000).await;
    let mut speaker = Mqtt::connect(config(running.address(), "speaker"));
    connected(&mut speaker).await;
    speaker.publish(
        envelope(Topic::ModelPublish { line: ModelLine::default() }, vec![0; 200_000]),
        Some(PromiseId(1)),
    );
    speaker.publish(
        envelope(Topic::ModelPublish { line: ModelLine::default() }, vec![1; 200_000]),
        None,
    );
    speaker.publish(
        envelope(Topic::ModelPublish { line: ModelLine::default() }, "small"),
        Some(PromiseId(2)),
    );

    assert_eq!(delivered(&mut speaker).await, PromiseId(2));
    assert_eq!(speaker.counts().unsendable, 2);
    assert_eq!(speaker.backlog(), 2, "they are tried again later");

    let losses = speaker.counts().losses;
    speaker.publish(
        envelope(Topic::ModelPublish { line: ModelLine::default() }, vec![1; 200_000]),
        None,
    );
    speaker.publish(
        envelope(Topic::ModelPublish { line: ModelLine::default() }, "next"),
        Some(PromiseId(3)),
    );
    assert_eq!(delivered(&mut speaker).await, PromiseId(3));
    assert_eq!(speaker.counts().losses, losses, "its machine says it in vain");
    running.stop().await;
}

#[tokio::test]
async fn a_message_that_mqtt_cannot_carry_is_dropped_at_once() {
    let running = embedded(broker::PACKET_BYTES_MAX).await;
    let mut speaker = Mqtt::connect(config(running.address(), "speaker"));
    connected(&mut speaker).await;
    let monster = vec![0; 268_435_455];
    speaker.publish(
        envelope(Topic::ModelPublish { line: ModelLine::default() }, monster),
        Some(PromiseId(1)),
    );
    assert_eq!(delivered(&mut speaker).await, PromiseId(1));
    assert_eq!((speaker.counts().unsendable, speaker.counts().losses), (1, 0));
    running.stop().await;
}

#[tokio::test]
async fn without_a_session_everything_is_subscribed_to_again() {
    let mut first = Some(embedded(broker::PACKET_BYTES_MAX).await);
    let address = first.as_ref().unwrap().address();
    let mut hearer = Mqtt::connect(config(address, "hearer"));
    hearer.listen(Filter::Exactly(Topic::TaskResults));
    connected(&mut hearer).await;
    first.take().unwrap().stop().await;
    lost(&mut hearer).await;
    hearer.listen(Filter::Exactly(Topic::TaskMetrics));

    let config_again = broker::BrokerConfig { listen: address, ..Default::default() };
    let second = broker::start(config_again).await.unwrap();
    assert!(!connected(&mut hearer).await, "this broker has forgotten everything");
    for topic in [Topic::TaskResults, Topic::TaskMetrics] {
        hearer.publish(envelope(topic.clone(), "x"), None);
        let (heard, receipt) = message(&mut hearer).await;
        assert_eq!(heard.topic, topic);
        hearer.ack(receipt);
    }
    second.stop().await;
}

#[tokio::test]
async fn a_transient_session_leaves_nothing_behind() {
    let running = embedded(broker::PACKET_BYTES_MAX).await;
    let transient = |id: &str| {
        Mqtt::connect(Config { session: SessionKind::Transient, ..config(running.address(), id) })
    };
    let mut caller = transient("caller");
    caller.listen(Filter::AnyModel);
    connected(&mut caller).await;
    caller.close(Duration::from_secs(10)).await;
    assert!(!connected(&mut transient("caller")).await);
    running.stop().await;
}

#[tokio::test]
async fn a_password_that_is_right_opens_and_a_wrong_one_is_waited_with() {
    let mut passwords = tempfile::NamedTempFile::new().unwrap();
    // Mosquitto's own form of the password `right` for user `me`.
    std::io::Write::write_all(&mut passwords, b"me:right\n").unwrap();
    let mut hash = std::process::Command::new("mosquitto_passwd");
    let hashed = hash.arg("-U").arg(passwords.path()).status();
    assert!(hashed.expect("mosquitto_passwd comes with mosquitto").success());
    open_to_all(passwords.path());
    let server = Mosquitto::start(&format!(
        "allow_anonymous false\npassword_file {}",
        passwords.path().display()
    ));
    let with = |password: &str| Config {
        credentials: Some(Credentials {
            username: "me".to_owned(),
            password: Some(password.parse().unwrap()),
        }),
        ..config(server.address, "me")
    };
    let mut wrong = Mqtt::connect(with("wrong"));
    let mut right = Mqtt::connect(with("right"));
    connected(&mut right).await;
    // An attempt that fails is no event; only the counter tells.
    while wrong.counts().failures < 2 {
        let nothing = tokio::time::timeout(Duration::from_millis(10), wrong.next()).await;
        assert!(nothing.is_err(), "{nothing:?}");
    }
    assert_eq!(wrong.counts().connections, 0);
}

/// Mosquitto gives up root before it reads.
fn open_to_all(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}

#[tokio::test]
async fn a_client_id_used_twice_ends_in_slow_reconnects_and_loses_nothing() {
    let running = embedded(broker::PACKET_BYTES_MAX).await;
    let mut one = Mqtt::connect(config(running.address(), "same"));
    connected(&mut one).await;
    let mut two = Mqtt::connect(config(running.address(), "same"));
    connected(&mut two).await;
    lost(&mut one).await;
    // Each comes back and throws the other out.
    connected(&mut one).await;
    lost(&mut two).await;
    drop(two);
    one.publish(envelope(Topic::TaskResults, "x"), Some(PromiseId(1)));
    until(&mut one, |inbound| (inbound == Inbound::Delivered(PromiseId(1))).then_some(())).await;
    running.stop().await;
}

/// Publishes a word under any topic, which our own transport would never do.
async fn shout(to: SocketAddr, topic: &str) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let connect = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05crier";
    stream.write_all(connect).await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    let len = u8::try_from(topic.len()).unwrap();
    let mut publish = vec![0x32, len + 2 + 2 + 4, 0, len];
    publish.extend(topic.as_bytes());
    publish.extend(b"\x00\x01word");
    stream.write_all(&publish).await.unwrap();
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x40, 2, 0, 1], "acknowledged");
}
