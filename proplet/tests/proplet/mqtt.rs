//! The whole proplet on a real broker: it waits for it, works over it, and leaves it politely.

use std::net::{SocketAddr, TcpListener};

use broker::{BrokerConfig, RunningBroker};
use proplet::PropletSettings;
use protocol::{
    Topic,
    message::{AliveStatus, PropletCreate},
};
use serde_json::Value;
use service::transport::{
    memory::Broker,
    mqtt::{Config, Mqtt, SessionKind},
};
use tokio_util::sync::CancellationToken;

use crate::platform::{Platform, federated, guest, settings, update_topic};

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
