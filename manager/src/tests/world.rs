//! A manager with an HTTP port, a broker in memory, and a disk.

use std::{collections::VecDeque, ffi::OsString, future::Future, net::SocketAddr, time::Duration};

use fleet::TABLES;
use http_api::Listening;
use protocol::{
    Envelope, Filter, Letter, PropletId, Topic,
    message::{HeldTask, PropletCreate, TaskResults, TaskStart},
};
use serde_json::{Value, json};
use service::{
    Figures, Inbound, Store, Transport as _,
    settings::{Environment, Resolved, resolve},
    transport::memory::{Broker, Memory},
};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle, time};
use tokio_util::sync::CancellationToken;

use super::http::{Said, call};
use crate::{ManagerError, ManagerSettings, serve};

/// No test waits for anything longer than this; what it waits for comes much sooner.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct World {
    pub(super) at: SocketAddr,
    pub(super) broker: Broker,
    pub(super) dir: TempDir,
    stop: CancellationToken,
    manager: JoinHandle<Result<(), ManagerError>>,
}

/// A participant that says what a test wants.
pub(super) struct Peer {
    transport: Memory,
    heard: VecDeque<Envelope>,
}

pub(super) fn settings(dir: &TempDir, words: &[&str]) -> ManagerSettings {
    let state = format!("--state-dir={}", dir.path().display());
    let mut all: Vec<OsString> = vec![state.into()];
    if !words.iter().any(|word| word.starts_with("--http-port")) {
        all.push("--http-port=0".into());
    }
    // Or the broker would be asked, and there may be one on this machine that is not ours.
    if !words.iter().any(|word| word.starts_with("--payload-bytes-max")) {
        all.push("--payload-bytes-max=268435455".into());
    }
    all.extend(words.iter().map(OsString::from));
    match resolve::<ManagerSettings>(&all, &Environment::default()) {
        Ok(Resolved::Run(settings)) => settings,
        Ok(Resolved::Print(text)) => panic!("{text}"),
        Err(why) => panic!("{why}"),
    }
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(&[]).await
    }

    pub(super) async fn with(words: &[&str]) -> Self {
        let world = Self::start(Broker::default(), TempDir::new().unwrap(), words).await;
        world.until("/health", |said| said.status == 200).await;
        world
    }

    pub(super) async fn start(broker: Broker, dir: TempDir, words: &[&str]) -> Self {
        let settings = settings(&dir, words);
        let store = Store::open(&settings.state.state_dir, "manager", TABLES).unwrap();
        let listening = Listening::bind(settings.http_address()).await.unwrap();
        let listening = listening.with_tls(settings.guard.tls().unwrap());
        let transport = broker.connect("manager", None);
        let stop = CancellationToken::new();
        let (ready, at) = oneshot::channel();
        let manager = tokio::spawn(serve(
            settings,
            listening,
            transport,
            (store, Figures::default()),
            (stop.clone(), ready),
        ));
        Self { at: at.await.unwrap(), broker, dir, stop, manager }
    }

    /// Ends well, and gives back what lasts.
    pub(super) async fn stop(self) -> (Broker, TempDir) {
        self.stop.cancel();
        within(self.manager).await.unwrap().unwrap();
        (self.broker, self.dir)
    }

    /// A restart on the same disk and broker.
    pub(super) async fn restart(self) -> Self {
        let (broker, dir) = self.stop().await;
        let world = Self::start(broker, dir, &[]).await;
        world.until("/health", |said| said.status == 200).await;
        world
    }

    pub(super) async fn get(&self, path: &str) -> Said {
        call(self.at, "GET", path, b"").await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Said {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        call(self.at, "POST", path, body.as_bytes()).await
    }

    /// Asks until the answer is as expected.
    pub(super) async fn until(&self, path: &str, good: impl Fn(&Said) -> bool) -> Said {
        let asking = async {
            loop {
                let said = self.get(path).await;
                if good(&said) {
                    return said;
                }
                time::sleep(Duration::from_millis(2)).await;
            }
        };
        within(asking).await
    }

    pub(super) async fn until_state(&self, id: &str, state: &str) -> Value {
        let path = format!("/tasks/{id}");
        self.until(&path, |said| said.json()["state"] == state).await.json()
    }

    /// A proplet that is alive.
    pub(super) async fn proplet(&self, name: &str) -> Peer {
        let mut peer = Peer::new(&self.broker, name, &[Topic::TaskStart, Topic::TaskStop]).await;
        peer.create(name, &[]);
        self.until(&format!("/proplets/{name}"), |said| said.status == 200).await;
        peer
    }

    /// A task made over HTTP.
    pub(super) async fn task(&self, wording: Value) -> String {
        let said = self.post("/tasks", wording).await;
        assert_eq!(said.status, 201, "{said:?}");
        said.json()["id"].as_str().unwrap().to_owned()
    }
}

impl Peer {
    pub(super) async fn new(broker: &Broker, name: &str, topics: &[Topic]) -> Self {
        let mut transport = broker.connect(name, None);
        for topic in topics {
            transport.listen(Filter::Exactly(topic.clone()));
        }
        let first = within(transport.next()).await.unwrap();
        assert_eq!(first, Inbound::Connected { resumed: false });
        Self { transport, heard: VecDeque::new() }
    }

    pub(super) fn say(&mut self, letter: &impl Letter) {
        self.transport.publish(letter.seal(), None);
    }

    pub(super) fn say_raw(&mut self, topic: Topic, payload: &str) {
        let payload = payload.to_owned().into();
        self.transport.publish(Envelope { topic, payload }, None);
    }

    pub(super) fn create(&mut self, name: &str, held: &[(&str, u32)]) {
        let held = held
            .iter()
            .map(|(id, attempt)| HeldTask { id: id.parse().unwrap(), attempt: *attempt });
        self.say(&PropletCreate {
            proplet_id: name.parse().unwrap(),
            namespace: String::new(),
            metadata: serde_json::from_value(json!({"os": "linux"})).unwrap(),
            tasks: Some(held.collect()),
        });
    }

    pub(super) fn report(&mut self, name: &str, id: &str, results: Value) {
        let proplet_id: PropletId = name.parse().unwrap();
        self.say(&TaskResults {
            task_id: id.parse().unwrap(),
            proplet_id,
            results,
            error: None,
            attempt: Some(1),
            code: None,
        });
    }

    pub(super) fn listen(&mut self, topic: Topic) {
        self.transport.listen(Filter::Exactly(topic));
    }

    /// The next message to this participant.
    pub(super) async fn hear(&mut self) -> Envelope {
        within(async {
            loop {
                if let Some(envelope) = self.heard.pop_front() {
                    return envelope;
                }
                if let Inbound::Message { envelope, receipt } = self.transport.next().await.unwrap()
                {
                    self.transport.ack(receipt);
                    self.heard.push_back(envelope);
                }
            }
        })
        .await
    }

    pub(super) async fn hear_start(&mut self) -> TaskStart {
        let envelope = self.hear().await;
        assert_eq!(envelope.topic, Topic::TaskStart);
        envelope.open().unwrap()
    }
}

pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    time::timeout(PATIENCE, future).await.expect("it comes in time")
}
