//! The whole model server, files and all, on a broker in memory: what it has confirmed is there
//! again, whatever dies.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::{fs, path::Path, time::Duration};

use bytes::Bytes;
use model_server::ModelServerSettings;
use protocol::{
    Digest, Envelope, Filter, ModelLine, ModelUri, ModelVersion, Topic,
    message::{ModelLatest, with_traceparent},
};
use service::{
    Inbound, Transport as _,
    settings::{Environment, Resolved, resolve},
    transport::memory::{Broker, Memory},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

fn settings(dir: &Path) -> ModelServerSettings {
    let words = ["--state-dir".into(), dir.as_os_str().to_owned()];
    match resolve(&words, &Environment::default()).unwrap() {
        Resolved::Run(settings) => settings,
        Resolved::Print(text) => panic!("{text}"),
    }
}

struct Running {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Running {
    fn start(dir: &Path, broker: &Broker) -> Self {
        let stop = CancellationToken::new();
        let (settings, transport) = (settings(dir), broker.connect("model-server", None));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            model_server::serve(&settings, transport, stopped).await.unwrap();
        });
        Self { task, stop }
    }

    async fn dies(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    async fn stops(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

struct Peer(Memory);

impl Peer {
    /// Listening when it is there: what is published from now on is heard in its order.
    async fn connect(broker: &Broker, client_id: &str) -> Self {
        let mut transport = broker.connect(client_id, None);
        transport.listen(Filter::AnyModel);
        let connected = transport.next().await.unwrap();
        assert!(matches!(connected, Inbound::Connected { .. }), "{connected:?}");
        Self(transport)
    }

    fn offers(&mut self, payload: &Bytes) {
        let envelope = Envelope {
            topic: Topic::ModelPublish { line: ModelLine::default() },
            payload: payload.clone(),
        };
        self.0.publish(envelope, None);
    }

    /// Waits until the newest model is shown to be `version`; returns the models heard by then.
    async fn hears_latest(&mut self, version: u64) -> Vec<(ModelVersion, Bytes)> {
        let found = async {
            let mut models = vec![];
            loop {
                let Inbound::Message { envelope, receipt } = self.0.next().await.unwrap() else {
                    continue;
                };
                self.0.ack(receipt);
                if let Topic::Model { uri: ModelUri { version, .. } } = envelope.topic {
                    models.push((version, envelope.payload));
                } else if matches!(envelope.topic, Topic::ModelLatest { .. }) {
                    let latest: ModelLatest = envelope.open().unwrap();
                    if latest.version.0 == version {
                        return models;
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), found).await.unwrap()
    }
}

fn model(version: u64) -> Bytes {
    format!("{{\"w\":[{version}.5],\"version\":{version}}}").into()
}

/// Its bytes are what its maker knows it by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_kept_without_the_trace_that_it_came_in() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::default();
    let mut peer = Peer::connect(&broker, "peer").await;
    let running = Running::start(dir.path(), &broker);
    peer.hears_latest(0).await;
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
    peer.offers(&with_traceparent(&model(1), &given).unwrap());
    let heard = peer.hears_latest(1).await;
    assert_eq!(heard, [(ModelVersion(1), model(1))]);
    running.stops().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_confirmed_survives_both_deaths() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::default();
    let mut peer = Peer::connect(&broker, "peer").await;
    let running = Running::start(dir.path(), &broker);
    peer.hears_latest(0).await;
    peer.offers(&model(1));
    let models = peer.hears_latest(1).await;
    assert!(models.contains(&(ModelVersion(1), model(1))));
    running.dies().await;

    broker.crash();
    let mut late = Peer::connect(&broker, "late").await;
    let running = Running::start(dir.path(), &broker);
    let models = late.hears_latest(1).await;
    assert_eq!(models[0], (ModelVersion(1), model(1)), "the newest first");
    running.stops().await;
    let file = fs::read(dir.path().join("global_model_v1.json")).unwrap();
    assert_eq!(Digest::of(&file), Digest::of(&model(1)));

    fs::write(dir.path().join("global_model_v1.json"), &model(1)[..5]).unwrap();
    broker.crash();
    let mut later = Peer::connect(&broker, "later").await;
    let running = Running::start(dir.path(), &broker);
    let models = later.hears_latest(0).await;
    assert!(models.iter().all(|(version, _)| *version == ModelVersion(0)), "{models:?}");
    later.offers(&model(1));
    later.hears_latest(1).await;
    running.stops().await;
    assert!(dir.path().join("global_model_v1.json.corrupt-1").exists());
}

#[tokio::test]
async fn two_processes_do_not_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::default();
    let mut peer = Peer::connect(&broker, "peer").await;
    let running = Running::start(dir.path(), &broker);
    peer.hears_latest(0).await;
    let (settings, transport) = (settings(dir.path()), broker.connect("second", None));
    let second = model_server::serve(&settings, transport, CancellationToken::new()).await;
    let why = second.unwrap_err().to_string();
    assert!(why.contains("in use by another process"), "{why}");
    running.stops().await;
}
