//! Encrypted connections, against the embedded broker and Mosquitto: who is talked to, and who is
//! refused with which reason.

#![allow(clippy::print_stdout, reason = "tells which case it was that failed")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use protocol::{Filter, Topic};
use service::{
    Inbound, PromiseId, Transport as _,
    settings::MqttAddress,
    transport::mqtt::{Config, Mqtt, Tls, TlsFiles},
};
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::{
    ground::{config, connected, embedded, envelope, until},
    mosquitto::Mosquitto,
    pki::{Kind, Pki},
    websocket::Bridge,
};

/// Longer than any machine needs; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, PartialEq)]
enum Demands {
    Nothing,
    Certificate,
}

/// An encrypted broker of either make.
enum Server {
    Embedded(broker::RunningBroker),
    Mosquitto(Mosquitto),
}

#[derive(Clone, Copy, Debug)]
enum Make {
    Embedded,
    Mosquitto,
}

const MAKES: [Make; 2] = [Make::Embedded, Make::Mosquitto];

impl Server {
    async fn start(make: Make, pki: &Pki, kind: Kind, demands: Demands) -> Self {
        let (certificate, key) = (pki.certificate(kind), pki.key(kind));
        let demands = demands == Demands::Certificate;
        match make {
            Make::Embedded => {
                let tls = broker::TlsFiles {
                    certificate,
                    key,
                    client_ca: demands.then(|| pki.ca()),
                    client_crl: demands.then(|| pki.crl()),
                };
                let listen = SocketAddr::from(([127, 0, 0, 1], 0));
                let config = broker::BrokerConfig { listen, tls: Some(tls), ..Default::default() };
                Self::Embedded(broker::start(config).await.unwrap())
            }
            Make::Mosquitto => {
                let mut lines = format!(
                    "allow_anonymous true\ncertfile {}\nkeyfile {}",
                    certificate.display(),
                    key.display()
                );
                if demands {
                    lines += &format!(
                        "\nrequire_certificate true\ncafile {}\ncrlfile {}",
                        pki.ca().display(),
                        pki.crl().display()
                    );
                }
                Self::Mosquitto(Mosquitto::start(&lines))
            }
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Embedded(running) => running.address(),
            Self::Mosquitto(running) => running.address,
        }
    }
}

fn client(to: SocketAddr, scheme: &str, files: &TlsFiles) -> Config {
    let path = if scheme == "wss" { "/mqtt" } else { "" };
    let address: MqttAddress = format!("{scheme}://localhost:{}{path}", to.port()).parse().unwrap();
    let tls = Tls::load(&address, files).unwrap();
    Config { address, tls, ..config(to, "tls") }
}

/// Says something large, and hears it; in which order the broker answers is its business.
async fn talks(config: Config) {
    let mut transport = Mqtt::connect(config);
    transport.listen(Filter::Exactly(Topic::TaskResults));
    connected(&mut transport).await;
    assert_eq!(transport.trouble(), None);
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

/// Gets no connection, and says `why`.
async fn is_refused(config: Config, why: &str) {
    let transport = Mqtt::connect(config);
    let mut said = None;
    let waited = tokio::time::timeout(PATIENCE, async {
        while !said.as_ref().is_some_and(|said: &String| said.contains(why)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            said = transport.trouble().or(said.take());
        }
    });
    let waited = waited.await.is_ok();
    assert!(waited, "{why:?} was not said, but {said:?}");
    // Of TLS 1.3, a client has done its part before the broker looks at its certificate; but no
    // MQTT connection came of it.
    assert_eq!(transport.counts().connections, 0, "{why}");
}

#[tokio::test]
async fn a_broker_is_talked_to_if_its_certificate_is_good_and_else_gets_nothing() {
    let pki = Pki::new();
    for make in MAKES {
        for (kind, why) in [
            (Kind::Good, ""),
            (Kind::Expired, "has expired"),
            (Kind::WrongHost, "for another host (mqtt_address, mqtt_server_name)"),
            (Kind::UnknownCa, "signed by nobody whom we trust (mqtt_ca_file)"),
            (Kind::Revoked, "was revoked (mqtt_crl_file)"),
        ] {
            println!("{make:?} shows {kind:?}");
            let server = Server::start(make, &pki, kind, Demands::Nothing).await;
            let config = client(server.address(), "ssl", &pki.trusting());
            match kind {
                Kind::Good => talks(config).await,
                Kind::Expired | Kind::WrongHost | Kind::UnknownCa | Kind::Revoked => {
                    is_refused(config, why).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_client_is_let_in_if_its_certificate_is_good_and_else_told_why_not() {
    let pki = Pki::new();
    for make in MAKES {
        let server = Server::start(make, &pki, Kind::Good, Demands::Certificate).await;
        for (files, why) in [
            (pki.showing(Kind::Good), None),
            (pki.showing(Kind::Expired), Some("it has expired (mqtt_cert_file)")),
            (pki.showing(Kind::UnknownCa), Some("does not trust who signed it")),
            (pki.showing(Kind::Revoked), Some("it was revoked")),
            (pki.trusting(), Some("there is none, and the broker demands one")),
        ] {
            println!("{make:?} is shown {:?}", files.certificate);
            let config = client(server.address(), "ssl", &files);
            match why {
                None => talks(config).await,
                Some(why) => is_refused(config, why).await,
            }
        }
    }
}

#[tokio::test]
async fn plain_and_encrypted_do_not_mix_and_it_is_said() {
    let pki = Pki::new();
    let plain = embedded(broker::PACKET_BYTES_MAX).await;
    // A broker that is sent a handshake may answer with nothing but a closed connection.
    let transport = Mqtt::connect(client(plain.address(), "ssl", &pki.trusting()));
    while transport.trouble().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(transport.counts().connections, 0);
    let server = Server::start(Make::Embedded, &pki, Kind::Good, Demands::Nothing).await;
    let unencrypted = Mqtt::connect(config(server.address(), "plain"));
    while unencrypted.trouble().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(unencrypted.counts().connections, 0);
    talks(client(server.address(), "ssl", &pki.trusting())).await;
}

#[tokio::test]
async fn a_broker_behind_another_name_is_talked_to_by_the_name_on_its_certificate() {
    let pki = Pki::new();
    let server = Server::start(Make::Embedded, &pki, Kind::WrongHost, Demands::Nothing).await;
    let named = |name: &str| TlsFiles { server_name: Some(name.to_owned()), ..pki.trusting() };
    talks(client(server.address(), "ssl", &named("elsewhere.example"))).await;
    let other = client(server.address(), "ssl", &named("nowhere.example"));
    is_refused(other, "for another host").await;
}

/// One idle client of a TLS port must not hold up the others.
#[tokio::test]
async fn who_dawdles_over_a_handshake_holds_up_nobody() {
    let pki = Pki::new();
    let server = Server::start(Make::Embedded, &pki, Kind::Good, Demands::Nothing).await;
    let idle: Vec<_> =
        (0..20).map(|_| std::net::TcpStream::connect(server.address()).unwrap()).collect();
    talks(client(server.address(), "ssl", &pki.trusting())).await;
    drop(idle);
}

#[tokio::test]
async fn files_that_cannot_be_used_are_refused_by_setting() {
    let pki = Pki::new();
    let address: MqttAddress = "ssl://localhost".parse().unwrap();
    let refused = |files: TlsFiles| Tls::load(&address, &files).unwrap_err().to_string();
    let ca = Some("nowhere.pem".into());
    let said = refused(TlsFiles { ca, ..pki.trusting() });
    assert!(said.contains("mqtt_ca_file") && said.contains("nowhere.pem"), "{said}");
    let said = refused(TlsFiles { crl: Some(pki.ca()), ..pki.trusting() });
    assert!(said.contains("mqtt_crl_file"), "{said}");
    let said = refused(TlsFiles { key: None, ..pki.showing(Kind::Good) });
    assert!(said.contains("mqtt_cert_file") && said.contains("mqtt_key_file"), "{said}");
    let said = refused(TlsFiles { key: Some(pki.key(Kind::Expired)), ..pki.showing(Kind::Good) });
    assert!(said.contains("mqtt_key_file"), "{said}");
    let said = refused(TlsFiles { server_name: Some("a b".into()), ..pki.trusting() });
    assert!(said.contains("mqtt_server_name") && said.contains("a b"), "{said}");
}

#[tokio::test]
async fn a_websocket_is_talked_through_encrypted_or_not() {
    let pki = Pki::new();
    let running = embedded(broker::PACKET_BYTES_MAX).await;
    let bridge = Bridge::start(running.address()).await;
    let address: MqttAddress = format!("ws://{}/mqtt", bridge.address).parse().unwrap();
    talks(Config { address, ..config(bridge.address, "websocket") }).await;
    for (kind, why) in [(Kind::Good, None), (Kind::UnknownCa, Some("nobody whom we trust"))] {
        let bridge = Bridge::start_with(running.address(), Some(bridge_tls(&pki, kind))).await;
        let config = client(bridge.address, "wss", &pki.trusting());
        match why {
            None => talks(config).await,
            Some(why) => is_refused(config, why).await,
        }
    }
    running.stop().await;
}

fn bridge_tls(pki: &Pki, kind: Kind) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(pki.certificate(kind)).unwrap();
    let key = PrivateKeyDer::from_pem_file(pki.key(kind)).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    Arc::new(config.unwrap())
}
