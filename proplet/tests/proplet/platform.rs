//! The rest of the platform, as one peer that hears everything and says what a test wants said.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proplet::{Proplet, PropletError, PropletSettings};
use protocol::{
    Digest, Envelope, Filter, Letter, ModelLine, ModelUri, ModelVersion, PropletId, RoundId,
    TaskId, Topic,
    message::{
        AliveStatus, PropletAlive, PropletCreate, TaskResults, TaskStart, TaskStop, UpdateAck,
        Verdict,
    },
};
use serde::de::DeserializeOwned;
use serde_json::json;
use service::{
    Inbound, Transport,
    settings::{self, Environment, Resolved},
    transport::memory::{Broker, Memory},
};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time};
use tokio_util::sync::CancellationToken;

/// A guest for tests of long models and updates.
const COPIER: &str = include_str!("copier.rs");

/// Longer than anything takes on the slowest machine; a test that gets here has failed.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Platform<P = Memory> {
    pub(crate) dir: TempDir,
    /// Where proplets are started; another one than the peer's if that came from elsewhere.
    broker: Broker,
    peer: P,
    heard: Vec<Envelope>,
}

pub(crate) struct Running {
    stop: CancellationToken,
    life: JoinHandle<Result<(), PropletError>>,
}

impl<P: Transport> Platform<P> {
    /// A peer over `peer`.
    pub(crate) fn over(mut peer: P, broker: Broker) -> Self {
        for topic in [
            Topic::PropletCreate,
            Topic::PropletAlive,
            Topic::PropletMetrics,
            Topic::TaskMetrics,
            Topic::TaskResults,
            Topic::ModelWants { line: ModelLine::default() },
            Topic::ModuleWants,
        ] {
            peer.listen(Filter::Exactly(topic));
        }
        peer.listen(Filter::AnyUpdate);
        peer.listen(Filter::AnyUpdateChunk);
        let dir = tempfile::tempdir().expect("a directory");
        Self { dir, broker, peer, heard: vec![] }
    }

    /// Waits until the broker has taken note of what the peer listens to.
    pub(crate) async fn connected(&mut self) {
        while !matches!(self.peer.next().await.expect("it lives"), Inbound::Connected { .. }) {}
    }

    /// Waits until the broker is gone, and forgets what was heard before.
    pub(crate) async fn lost(&mut self) {
        while !matches!(self.peer.next().await.expect("it lives"), Inbound::Lost { .. }) {}
        self.heard.clear();
    }

    /// A proplet on this platform's broker and disk, once it has introduced itself.
    pub(crate) async fn start(&mut self, flags: &[&str]) -> (Running, PropletCreate) {
        // The peer has to be there first, or it misses the introduction.
        self.settle().await;
        let settings = settings(self.dir.path(), flags).expect("good settings");
        let proplet = Proplet::open(&settings).expect("it opens");
        assert_eq!(*proplet.id(), me());
        let transport = self.broker.connect("proplet-1", Some(proplet.last_will()));
        let stop = CancellationToken::new();
        let life = tokio::spawn(proplet.serve(transport, stop.clone()));
        let create = self.hear(&Topic::PropletCreate).await;
        (Running { stop, life }, create)
    }

    async fn settle(&mut self) {
        while !self.heard.is_empty() || self.heard_now().await {
            self.heard.clear();
        }
    }

    /// Takes in what is there; whether there was anything.
    async fn heard_now(&mut self) -> bool {
        tokio::select! {
            biased;
            inbound = self.peer.next() => self.note(inbound.expect("the broker lives")),
            () = std::future::ready(()) => return false,
        }
        true
    }

    fn note(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Message { envelope, receipt } => {
                self.peer.ack(receipt);
                self.heard.push(envelope);
            }
            Inbound::Connected { .. } | Inbound::Delivered(_) | Inbound::Lost { .. } => {}
        }
    }

    pub(crate) async fn say(&mut self, letter: &impl Letter) {
        self.publish(letter.seal()).await;
    }

    pub(crate) async fn publish(&mut self, envelope: Envelope) {
        self.peer.publish(envelope, None);
        while self.heard_now().await {}
    }

    pub(crate) async fn publish_model(&mut self, version: u64) {
        let payload = json!({"w": [0.0, 0.0, 0.0], "b": 0.0, "version": version}).to_string();
        let topic = Topic::Model { uri: ModelUri::global(ModelVersion(version)) };
        self.publish(Envelope { topic, payload: payload.into() }).await;
    }

    pub(crate) async fn accept(&mut self, round: &str) {
        let ack =
            UpdateAck { round_id: round_id(round), proplet_id: me(), verdict: Verdict::Accepted };
        self.say(&ack).await;
    }

    /// The next message on `topic`, from those that were heard already or will be.
    pub(crate) async fn hear<M: DeserializeOwned>(&mut self, topic: &Topic) -> M {
        self.hear_envelope(topic).await.open().expect("readable")
    }

    /// As [`Platform::hear`], as it came.
    pub(crate) async fn hear_envelope(&mut self, topic: &Topic) -> Envelope {
        let waiting = async {
            loop {
                if let Some(at) = self.heard.iter().position(|it| it.topic == *topic) {
                    return self.heard.remove(at);
                }
                let inbound = self.peer.next().await.expect("the broker lives");
                self.note(inbound);
            }
        };
        let envelope = time::timeout(PATIENCE, waiting).await;
        envelope.unwrap_or_else(|_| panic!("nothing on {topic}"))
    }

    pub(crate) async fn result_of(&mut self, task: &str) -> TaskResults {
        loop {
            let results: TaskResults = self.hear(&Topic::TaskResults).await;
            if results.task_id == task_id(task) {
                return results;
            }
        }
    }

    pub(crate) async fn alive(&mut self) -> PropletAlive {
        self.hear(&Topic::PropletAlive).await
    }

    /// The last word on whether the proplet is there.
    pub(crate) async fn last_status(&mut self) -> AliveStatus {
        let mut last = self.alive().await.status;
        while self.heard_now().await || self.overheard(&Topic::PropletAlive) {
            if self.overheard(&Topic::PropletAlive) {
                last = self.alive().await.status;
            }
        }
        last
    }

    /// Everything that was said and not asked for.
    pub(crate) fn all_overheard(&mut self) -> Vec<Envelope> {
        std::mem::take(&mut self.heard)
    }

    /// Whether anything was said on `topic` that was not asked for.
    pub(crate) fn overheard(&self, topic: &Topic) -> bool {
        self.heard.iter().any(|envelope| envelope.topic == *topic)
    }
}

impl Platform {
    /// A peer over a broker in memory.
    pub(crate) fn new() -> Self {
        let broker = Broker::default();
        Self::over(broker.connect("everybody-else", None), broker)
    }
}

impl Running {
    /// Stops it in good order.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let ended = time::timeout(PATIENCE, self.life).await.expect("it ends");
        ended.expect("no panic").expect("no error");
    }

    /// Takes it away in the middle of everything.
    pub(crate) async fn kill(self) {
        self.life.abort();
        assert!(self.life.await.is_err_and(|why| why.is_cancelled()));
    }
}

pub(crate) fn settings(dir: &Path, flags: &[&str]) -> Result<PropletSettings, String> {
    let mut words: Vec<OsString> = vec!["--id=proplet-1".into(), "--state-dir".into()];
    words.push(dir.join("state").into());
    words.extend(flags.iter().map(OsString::from));
    match settings::resolve::<PropletSettings>(&words, &Environment::default())
        .map_err(|why| why.to_string())?
    {
        Resolved::Run(settings) => Ok(settings),
        Resolved::Print(text) => panic!("nobody asked for {text}"),
    }
}

pub(crate) fn me() -> PropletId {
    "proplet-1".parse().expect("an id")
}

pub(crate) fn task_id(text: &str) -> TaskId {
    text.parse().expect("an id")
}

pub(crate) fn round_id(text: &str) -> RoundId {
    text.parse().expect("an id")
}

pub(crate) fn update_topic(round: &str) -> Topic {
    Topic::RoundUpdate { round: round_id(round), proplet: me() }
}

/// One of the guests that behave badly, or not: assembled, as base64.
pub(crate) fn guest(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client-wasm/hostile");
    let text = fs::read_to_string(dir.join(name).with_extension("wat")).expect("a guest");
    STANDARD.encode(wat::parse_str(text).expect("it assembles"))
}

/// The guest in `copier.rs`, as base64; kept between runs of the tests, under the digest of its
/// source.
pub(crate) fn copier() -> String {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let built = dir.join(format!("copier-{}.wasm", Digest::of(COPIER.as_bytes())));
    if !built.exists() {
        let own = tempfile::tempdir_in(&dir).expect("a directory");
        let (source, out) = (own.path().join("copier.rs"), own.path().join("copier.wasm"));
        fs::write(&source, COPIER).expect("written");
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(rustc);
        command.args(["--edition=2024", "-Copt-level=1", "-Cpanic=abort"]);
        command.args(["--target", "wasm32-wasip1", "-o"]).arg(&out).arg(&source);
        let status = command.status().expect("a compiler");
        assert!(status.success(), "{command:?} needs: rustup target add wasm32-wasip1");
        fs::rename(out, &built).expect("moved");
    }
    STANDARD.encode(fs::read(built).expect("a guest"))
}

/// A task sent on the proplet's own topic.
pub(crate) fn task(id: &str, file: Option<String>) -> TaskStart {
    let start = json!({"id": id, "name": id, "file": file, "proplet_id": me()});
    let mut start: TaskStart = serde_json::from_value(start).expect("a start");
    start.directed = true;
    start
}

/// As [`task`], for a round based on model 0.
pub(crate) fn federated(id: &str, file: Option<String>, round: &str) -> TaskStart {
    let mut start = task(id, file);
    let base = ModelUri::global(ModelVersion(0)).to_string();
    for (name, value) in [
        ("ROUND_ID", round),
        ("MODEL_URI", &base),
        ("HYPERPARAMS", "{}"),
        ("PROPLET_ID", "proplet-1"),
    ] {
        start.env.insert(name.to_owned(), value.to_owned());
    }
    start
}

pub(crate) fn stop(id: &str) -> TaskStop {
    TaskStop { id: task_id(id), proplet_id: Some(me()), broadcast: None, directed: true }
}
