//! Who may call, and how privately.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use access::{Authority, Entry, Roster, Scope, Subject, Token, Validity, fingerprint};
use service::settings::{Environment, resolve};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use super::{
    http::{Said, call, call_on, call_with},
    world::{World, within},
};
use crate::ManagerSettings;

const AT: &str = "2026-01-12T10:30:45Z";

/// A roster with a token of each scope: read, tasks, admin.
fn roster(path: &Path) -> [Token; 3] {
    let mut roster = Roster::default();
    let tokens = [Scope::Read, Scope::Tasks, Scope::Admin].map(|scope| {
        let token = Token::make(scope.name().parse().unwrap());
        let secret_sha256 = Some(fingerprint(token.secret().as_bytes()));
        let entry = Entry { scopes: [scope].into(), secret_sha256, ..Entry::new(AT) };
        roster.add(token.name().clone(), entry).unwrap();
        token
    });
    roster.save(path).unwrap();
    tokens
}

async fn calls(at: SocketAddr, method: &str, path: &str, token: &str) -> Said {
    let header = format!("Authorization: Bearer {token}\r\n");
    call_with(at, method, path, &header, br#"{"name":"t"}"#).await
}

#[tokio::test]
async fn a_call_needs_a_token_with_its_scope() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("roster.json");
    let [read, tasks, admin] = roster(&file);
    let world = World::with(&[&format!("--roster-file={}", file.display())]).await;
    for path in ["/tasks", "/proplets", "/metrics", "/no/such/path"] {
        let said = world.get(path).await;
        assert_eq!((said.status, said.header("www-authenticate")), (401, Some("Bearer")), "{path}");
        assert!(said.error().contains("Authorization: Bearer"), "{}", said.error());
    }
    for open in ["/health", "/openapi.json"] {
        assert_eq!(world.get(open).await.status, 200, "{open}");
    }
    for bad in ["", "x", "read.0", &Token::make("read".parse().unwrap()).expose()] {
        let said = calls(world.at, "GET", "/tasks", bad).await;
        assert_eq!(said.status, 401, "{bad:?}");
        assert!(bad.is_empty() || !said.error().contains(bad), "{}", said.error());
    }
    for (method, path, statuses) in [
        ("GET", "/tasks", [200, 200, 200]),
        ("POST", "/tasks", [403, 201, 201]),
        ("DELETE", "/proplets/p9", [403, 403, 404]),
    ] {
        for (token, status) in [&read, &tasks, &admin].into_iter().zip(statuses) {
            let said = calls(world.at, method, path, &token.expose()).await;
            assert_eq!(said.status, status, "{method} {path} by {token:?}: {said:?}");
        }
    }
    let said = calls(world.at, "POST", "/tasks", &read.expose()).await;
    assert!(said.error().contains("scope tasks"), "{}", said.error());
    let mut all = Roster::load(&file).unwrap();
    all.revoke(tasks.name(), AT).unwrap();
    all.save(&file).unwrap();
    assert_eq!(calls(world.at, "POST", "/tasks", &tasks.expose()).await.status, 401);
    assert_eq!(calls(world.at, "POST", "/tasks", &admin.expose()).await.status, 201);
    world.stop().await;
}

#[tokio::test]
async fn https_is_spoken_to_those_who_trust_it_and_plain_callers_hold_up_nobody() {
    let dir = TempDir::new().unwrap();
    let now = OffsetDateTime::now_utc();
    let authority = Authority::new("test", now).unwrap();
    let hosts = vec!["localhost".to_owned()];
    let subject = Subject { name: "manager".to_owned(), hosts };
    let issued = authority.issue(&subject, Validity::days(now, 1)).unwrap();
    let (certificate, key) = (dir.path().join("m.pem"), dir.path().join("m.key"));
    fs::write(&certificate, issued.certificate_pem).unwrap();
    fs::write(&key, issued.key_pem).unwrap();
    let words = [
        format!("--http-tls-cert-file={}", certificate.display()),
        format!("--http-tls-key-file={}", key.display()),
    ];
    let words = words.each_ref().map(String::as_str);
    let world = World::start(Default::default(), TempDir::new().unwrap(), &words).await;
    let idle: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(world.at).unwrap()).collect();
    let connector = trusting(authority.pem());
    let said = within(async {
        let tcp = TcpStream::connect(world.at).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, tcp).await.unwrap();
        call_on(stream, world.at, "GET", ("/tasks", ""), b"").await
    });
    assert_eq!(said.await.status, 200);
    let stranger = Authority::new("stranger", now).unwrap();
    let tcp = TcpStream::connect(world.at).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    assert!(trusting(stranger.pem()).connect(name, tcp).await.is_err());
    drop(idle);
    world.stop().await;
}

fn trusting(pem: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// What a manager that is started with `words` says, if it refuses.
fn refusal(words: &[&str]) -> Option<String> {
    let words: Vec<_> = words.iter().map(Into::into).collect();
    resolve::<ManagerSettings>(&words, &Environment::default()).err().map(|why| why.to_string())
}

#[test]
fn other_machines_are_served_only_with_a_roster_or_on_purpose() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("roster.json");
    let _tokens = roster(&file);
    let listed = format!("--roster-file={}", file.display());
    for open in ["0.0.0.0", "::", "192.0.2.7", "::ffff:192.0.2.7"] {
        let host = format!("--http-host={open}");
        let said = refusal(&[&host]).unwrap();
        for named in ["http_host", open, "roster_file", "http_allow_remote"] {
            assert!(said.contains(named), "{said}");
        }
        assert_eq!(refusal(&[&host, "--http-allow-remote"]), None);
        assert_eq!(refusal(&[&host, &listed]), None);
    }
    for loopback in ["127.0.0.1", "localhost", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(refusal(&[&format!("--http-host={loopback}")]), None, "{loopback}");
    }
}

#[test]
fn files_that_cannot_be_used_are_refused_by_setting() {
    let dir = TempDir::new().unwrap();
    let nothing = dir.path().join("nothing");
    fs::write(&nothing, "").unwrap();
    let nothing = nothing.display();
    let said = refusal(&["--roster-file=nowhere.json"]).unwrap();
    assert!(said.contains("roster_file") && said.contains("nowhere.json"), "{said}");
    let said = refusal(&[&format!("--roster-file={nothing}")]).unwrap();
    assert!(said.contains("roster_file"), "{said}");
    let (cert, key) =
        (format!("--http-tls-cert-file={nothing}"), format!("--http-tls-key-file={nothing}"));
    assert!(refusal(&[&cert]).unwrap().contains("together with http_tls_key_file"));
    assert!(refusal(&[&key]).unwrap().contains("together with http_tls_cert_file"));
    assert!(refusal(&[&cert, &key]).unwrap().contains("http_tls_cert_file"));
}

#[tokio::test]
async fn without_a_roster_the_loopback_is_open() {
    let world = World::new().await;
    assert_eq!(call(world.at, "GET", "/tasks", b"").await.status, 200);
    world.stop().await;
}
