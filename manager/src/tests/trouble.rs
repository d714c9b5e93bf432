//! No broker, no disk, no port, no manners.

use std::time::Duration;

use http_api::Listening;
use protocol::Topic;
use serde_json::{Value, json};
use service::transport::memory::Broker;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;

use super::world::{Peer, World, settings, within};
use crate::run_with;

#[tokio::test]
async fn without_a_broker_it_says_so_and_what_is_known_can_still_be_read() {
    let broker = Broker::default();
    broker.stop();
    let world = World::start(broker, TempDir::new().unwrap(), &[]).await;

    let health = world.get("/health").await;
    assert_eq!(health.status, 503);
    let health = health.json();
    assert_eq!(health["status"], "fail");
    assert_eq!(health["error"], "not connected to the broker");
    let id = world.task(json!({"name": "t"})).await;
    for act in ["start", "stop"] {
        let said = world.post(&format!("/tasks/{id}/{act}"), Value::Null).await;
        assert_eq!((said.status, said.error().as_str()), (503, "not connected to the broker"));
    }
    assert_eq!(world.get(&format!("/tasks/{id}")).await.json()["state"], "Pending");

    world.broker.resume();
    let health = world.until("/health", |said| said.status == 200).await.json();
    assert_eq!(health["status"], "pass");
    assert_eq!(health["description"], "manager service");
    for key in ["version", "commit", "build_time", "instance_id"] {
        assert!(!health[key].as_str().unwrap().is_empty(), "{key}");
    }
    world.stop().await;
}

#[tokio::test]
async fn nonsense_on_the_wire_is_counted_and_harms_nobody() {
    let world = World::new().await;
    let mut vandal = Peer::new(&world.broker, "vandal", &[]).await;
    for topic in [Topic::RoundStart, Topic::PropletCreate, Topic::PropletAlive, Topic::TaskResults]
    {
        for nonsense in ["", "{", "null", "[]", r#"{"proplet_id":"../x"}"#, "\u{0}"] {
            vandal.say_raw(topic.clone(), nonsense);
        }
    }
    let counted = |said: &super::http::Said| {
        let text = String::from_utf8_lossy(&said.body);
        text.lines().any(|line| line == "aileron_messages_unreadable_total 24")
    };
    world.until("/metrics", counted).await;
    assert_eq!(world.get("/proplets").await.json()["total"], 0);
    world.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_an_error_with_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let dir = TempDir::new().unwrap();
    let settings = settings(&dir, &[&format!("--http-port={}", address.port())]);
    let (ready, _at) = oneshot::channel();

    let why = within(run_with(settings, CancellationToken::new(), ready)).await.unwrap_err();

    let said = service::run::chain(&why);
    assert!(said.starts_with(&format!("listen for HTTP on {address}: ")), "{said}");
}

#[tokio::test]
async fn a_state_directory_in_use_is_an_error_with_its_path() {
    let world = World::new().await;
    let settings = settings(&world.dir, &[]);
    let (ready, _at) = oneshot::channel();
    let why = within(run_with(settings, CancellationToken::new(), ready)).await.unwrap_err();
    assert!(why.to_string().contains("manager.db is in use by another process"), "{why}");
    world.stop().await;
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_given_up() {
    let listening = Listening::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let at = listening.address();
    let closing = CancellationToken::new();
    let listening = listening.with_idle_max(Duration::from_millis(50));
    let serving = tokio::spawn(listening.serve(axum::Router::new(), closing.clone()));
    let mut slow = TcpStream::connect(at).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow").await.unwrap();

    // It says why, or nothing; either way it ends.
    let mut rest = vec![];
    let _ = within(slow.read_to_end(&mut rest)).await;

    closing.cancel();
    within(serving).await.unwrap();
}
