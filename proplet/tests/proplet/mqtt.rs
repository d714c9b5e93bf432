//! The whole proplet on a real broker: it waits for it, works over it, and leaves it politely.

use std::net::{SocketAddr, TcpListener};

use broker::{BrokerConfig, RunningBroker};
use proplet::PropletSettings;
use protocol::{
    Topic,
    message::{AliveStatus, PropletCreate, PropletMetrics},
};
use serde_json::Value;
use service::transport::{
    memory::Broker,
    mqtt::{Config, Mqtt, SessionKind},
};
use tokio_util::sync::CancellationToken;

use crate::platform::{
    Platform, federated, guest, settings, stop as stop_task, task, update_topic,
};

/// A port that nobody listens on, until the broker does.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address")
}

async fn start_broker(listen: SocketAddr) -> RunningBroker {
    broker::start(BrokerConfig { listen, ..BrokerConfig::default() }).await.expect("a broker")
}

fn peer(settings: &PropletSettings) -> Mqtt {
    let address = settings.mqtt.mqtt_address.clone();
    let mut config = Config::new(address, "everybody-else".to_owned(), settings.mqtt.namespace());
    config.session = SessionKind::Transient;
    Mqtt::connect(config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_waits_for_its_broker_works_and_says_offline_before_it_goes() {
    let listen = free_address();
    let dir = tempfile::tempdir().expect("a directory");
    let address = format!("--mqtt-address=tcp://{listen}");
    let settings = settings(dir.path(), &[&address]).expect("good settings");
    let mut platform = Platform::over(peer(&settings), Broker::default());
    let broker = start_broker(listen).await;
    platform.connected().await;
    let stop = CancellationToken::new();
    let life = tokio::spawn(proplet::run(settings, stop.clone()));
    platform.hear::<PropletCreate>(&Topic::PropletCreate).await;

    platform.publish_model(0).await;
    platform.say(&federated("t-1", Some(guest("note-contract")), "r-1")).await;
    assert_eq!(platform.result_of("t-1").await.error, None);
    let said: Value = platform.hear(&update_topic("r-1")).await;

    broker.stop().await;
    platform.lost().await;
    let broker = start_broker(listen).await;
    platform.connected().await;
    // Nobody has judged it: it comes again as soon as the proplet is back.
    assert_eq!(platform.hear::<Value>(&update_topic("r-1")).await, said);
    platform.accept("r-1").await;

    platform.say(&federated("t-2", Some(guest("loop-forever")), "r-2")).await;
    platform.publish_model(0).await;
    while platform.alive().await.tasks.is_none_or(|held| held.is_empty()) {}
    stop.cancel();
    life.await.expect("no panic").expect("it ends well");
    assert_eq!(platform.result_of("t-2").await.code.expect("a code").0, "interrupted");
    loop {
        let alive = platform.alive().await;
        if alive.status == AliveStatus::Offline {
            assert_eq!(alive.tasks, Some(vec![]), "its own word, not its last will");
            break;
        }
    }
    broker.stop().await;
}

/// An hour of these signs of life, and all else that is said, shows in a few seconds: how often
/// the rest is said does not depend on them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_proplet_says_next_to_nothing_beside_its_signs_of_life() {
    /// Of an hour of signs of life, at one in ten seconds.
    const SIGNS: usize = 12;
    let listen = free_address();
    let dir = tempfile::tempdir().expect("a directory");
    let address = format!("--mqtt-address=tcp://{listen}");
    let flags = [&address, "--alive-interval-s=1", "--metrics-interval-s=1"];
    let settings = settings(dir.path(), &flags).expect("good settings");
    let mut platform = Platform::over(peer(&settings), Broker::default());
    let broker = start_broker(listen).await;
    platform.connected().await;
    let stop = CancellationToken::new();
    let life = tokio::spawn(proplet::run(settings, stop.clone()));
    for _ in 0..SIGNS {
        platform.alive().await;
    }
    let rest = platform.all_overheard();
    let topics: Vec<&Topic> = rest.iter().map(|envelope| &envelope.topic).collect();
    assert_eq!(topics, [&Topic::PropletCreate, &Topic::PropletMetrics]);
    let bytes: usize = rest.iter().map(|it| it.payload.len() + it.topic.to_string().len()).sum();
    assert!(bytes < 1000, "{bytes} bytes, however long it is idle: {rest:?}");

    // What runs is measured, until it has ended.
    platform.say(&task("t-1", Some(guest("loop-forever")))).await;
    for _ in 0..3 {
        platform.hear::<PropletMetrics>(&Topic::PropletMetrics).await;
    }
    platform.say(&stop_task("t-1")).await;
    assert_eq!(platform.result_of("t-1").await.code.expect("a code").0, "cancelled");
    stop.cancel();
    life.await.expect("no panic").expect("it ends well");
    broker.stop().await;
}
