//! Encrypted connections, against Mosquitto, and WebSockets, through a bridge.

use std::path::{Path, PathBuf};

use protocol::{Filter, Topic};
use service::{
    Inbound, PromiseId, Transport as _,
    settings::MqttAddress,
    transport::mqtt::{Config, Mqtt, Tls},
};

use crate::{
    ground::{config, connected, embedded, envelope, until},
    mosquitto::Mosquitto,
    websocket::Bridge,
};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transport/tls").join(name)
}

/// Mosquitto gives up root before it reads its key, so it gets a copy that it can read.
fn server() -> (Mosquitto, tempfile::TempDir) {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(dir.path(), 0o755);
    for name in ["server.pem", "server.key"] {
        std::fs::copy(file(name), dir.path().join(name)).unwrap();
        open(&dir.path().join(name), 0o644);
    }
    let at = dir.path().display();
    let tls = format!("allow_anonymous true\ncertfile {at}/server.pem\nkeyfile {at}/server.key");
    (Mosquitto::start(&tls), dir)
}

fn trusting(authority: &str, server: &Mosquitto) -> Config {
    let address: MqttAddress =
        format!("ssl://localhost:{}", server.address.port()).parse().unwrap();
    let tls = Tls::load(&address, Some(&file(authority))).unwrap();
    Config { address, tls, ..config(server.address, authority) }
}

/// Says something large, and hears it; in which order the broker answers is its business.
async fn talks(config: Config) {
    let mut transport = Mqtt::connect(config);
    transport.listen(Filter::Exactly(Topic::TaskResults));
    connected(&mut transport).await;
    let said = envelope(Topic::TaskResults, vec![b'x'; 300_000]);
    transport.publish(said.clone(), Some(PromiseId(1)));
    let (mut is_delivered, mut is_heard) = (false, false);
    until(&mut transport, |inbound| {
        match inbound {
            Inbound::Delivered(id) => is_delivered |= id == PromiseId(1),
            Inbound::Message { envelope, .. } => is_heard |= envelope == said,
            Inbound::Connected { .. } | Inbound::Lost { .. } => panic!("{inbound:?}"),
        }
        (is_delivered && is_heard).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_trusted_is_talked_to() {
    let (server, _dir) = server();
    talks(trusting("ca.pem", &server)).await;
}

#[tokio::test]
async fn a_server_that_is_not_trusted_gets_nothing() {
    let (server, _dir) = server();
    let mut distrusts = Mqtt::connect(trusting("other.pem", &server));
    while distrusts.counts().failures < 2 {
        let wait = std::time::Duration::from_millis(10);
        let nothing = tokio::time::timeout(wait, distrusts.next()).await;
        assert!(nothing.is_err(), "{nothing:?}");
    }
    assert_eq!(distrusts.counts().connections, 0);
}

#[tokio::test]
async fn a_websocket_is_talked_through() {
    let running = embedded(broker::PACKET_BYTES_MAX).await;
    let bridge = Bridge::start(running.address()).await;
    let address: MqttAddress = format!("ws://{}/mqtt", bridge.address).parse().unwrap();
    talks(Config { address, ..config(bridge.address, "websocket") }).await;
    running.stop().await;
}
