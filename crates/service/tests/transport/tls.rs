//! Encrypted connections and WebSockets, against Mosquitto.

use std::path::{Path, PathBuf};

use protocol::{Filter, Topic};
use service::{
    PromiseId, Transport as _,
    settings::MqttAddress,
    transport::mqtt::{Config, Mqtt, Tls},
};

use crate::{
    ground::{config, connected, delivered, envelope, message},
    mosquitto::Mosquitto,
};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transport/tls").join(name)
}

/// Mosquitto gives up root before it reads its key, so it gets a copy that it can read.
fn server(extra: &str) -> (Mosquitto, tempfile::TempDir) {
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
    let tls =
        format!("allow_anonymous true\ncertfile {at}/server.pem\nkeyfile {at}/server.key\n{extra}");
    (Mosquitto::start(&tls), dir)
}

fn trusting(scheme: &str, server: &Mosquitto) -> Config {
    let address: MqttAddress =
        format!("{scheme}://localhost:{}", server.address.port()).parse().unwrap();
    let tls = Tls::load(&address, Some(&file("ca.pem"))).unwrap();
    Config { address, tls, ..config(server.address, "tls") }
}

async fn talks(config: Config) {
    let mut transport = Mqtt::connect(config);
    transport.listen(Filter::Exactly(Topic::TaskResults));
    connected(&mut transport).await;
    let text = vec![b'x'; 100000];
    transport.publish(envelope(Topic::TaskResults, text.clone()), Some(PromiseId(1)));
    delivered(&mut transport).await;
    assert_eq!(message(&mut transport).await.0.payload, text);
}

#[tokio::test]
async fn tls() {
    service::telemetry::init(service::telemetry::LogFormat::Text);
    let (server, _dir) = server("log_type all");
    talks(trusting("ssl", &server)).await;
}

#[tokio::test]
async fn websocket_over_tls() {
    let (server, _dir) = server("protocol websockets");
    talks(trusting("wss", &server)).await;
}

#[tokio::test]
async fn websocket() {
    let server = Mosquitto::start("allow_anonymous true\nprotocol websockets");
    talks(trusting("ws", &server)).await;
}

#[tokio::test]
async fn a_server_that_is_not_trusted_gets_nothing() {
    let (server, _dir) = server("");
    let good = trusting("ssl", &server);
    // An authority that has not signed the server's certificate.
    let tls = Tls::load(&good.address, Some(&file("other.pem"))).unwrap();
    let config = Config { client_id: "distrusts".to_owned(), tls, ..good.clone() };
    let mut distrusts = Mqtt::connect(config);
    while distrusts.counts().failures < 2 {
        let wait = std::time::Duration::from_millis(10);
        let nothing = tokio::time::timeout(wait, distrusts.next()).await;
        assert!(nothing.is_err(), "{nothing:?}");
    }
    talks(good).await;
}
