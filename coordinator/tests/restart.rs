//! The whole coordinator, disk and all, on a broker in memory: killed, it goes on where it was.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::{path::Path, str::FromStr, time::Duration};

use coordinator::CoordinatorSettings;
use protocol::{
    Digest, Envelope, Filter, Letter as _, ModelLine, ModelUri, ModelVersion, Tensor, Tensors,
    Timestamp, Topic,
    ledger::{self, Claim, Member, Standing},
    message::{Model, ModelLatest, Origin, RoundComplete, RoundStart, Update, forward},
};
use service::{
    Inbound, Transport as _,
    settings::{Environment, Resolved, resolve},
    transport::memory::{Broker, Memory},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SAMPLES: [u64; 3] = [3, 5, 7];

fn settings(dir: &Path) -> CoordinatorSettings {
    let words = ["--state-dir".into(), dir.as_os_str().to_owned()];
    match resolve(&words, &Environment::default()).unwrap() {
        Resolved::Run(settings) => settings,
        Resolved::Print(text) => panic!("{text}"),
    }
}

/// A running coordinator.
struct Running {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Running {
    fn start(dir: &Path, broker: &Broker) -> Self {
        let stop = CancellationToken::new();
        let (settings, transport) = (settings(dir), broker.connect("coordinator", None));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            coordinator::serve(&settings, transport, stopped).await.unwrap();
        });
        Self { task, stop }
    }

    /// As far as a task can be killed: it does nothing more.
    async fn dies(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    async fn stops(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// Everybody else.
struct Peer(Memory);

impl Peer {
    fn connect(broker: &Broker) -> Self {
        let mut transport = broker.connect("peer", None);
        transport.listen(Filter::Everything);
        Self(transport)
    }

    fn says(&mut self, envelope: Envelope) {
        self.0.publish(envelope, None);
    }

    /// Waits for the next message that is about what is asked for.
    async fn hears<R>(&mut self, pick: impl Fn(&Envelope) -> Option<R>) -> R {
        let found = async {
            loop {
                if let Inbound::Message { envelope, receipt } = self.0.next().await.unwrap() {
                    self.0.ack(receipt);
                    if let Some(found) = pick(&envelope) {
                        return found;
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), found).await.unwrap()
    }

    /// Says something again and again, as all peers do, until there is an answer.
    async fn asks(&mut self, question: Envelope, answer: &Topic) -> bytes::Bytes {
        loop {
            self.says(question.clone());
            let heard = self.hears_payload(answer);
            if let Ok(payload) = tokio::time::timeout(Duration::from_millis(200), heard).await {
                return payload;
            }
        }
    }

    async fn hears_payload(&mut self, topic: &Topic) -> bytes::Bytes {
        self.hears(|envelope| (envelope.topic == *topic).then(|| envelope.payload.clone())).await
    }
}

fn id<T: FromStr<Err = protocol::IdError>>(text: &str) -> T {
    text.parse().unwrap()
}

fn zeros() -> Tensors {
    let tensor = Tensor::new(vec![4], vec![0.0; 4]).unwrap();
    [("w".to_owned(), tensor)].into_iter().collect()
}

fn start() -> Envelope {
    let text = format!(
        r#"{{"round_id":"r","model_uri":"{}","participants":["p0","p1","p2"],"k_of_n":3}}"#,
        ModelUri::global(ModelVersion(0))
    );
    serde_json::from_str::<RoundStart>(&text).unwrap().seal()
}

fn update(index: usize) -> Envelope {
    let update = Update {
        round_id: id("r"),
        proplet_id: id(&format!("p{index}")),
        base_model_uri: ModelUri::global(ModelVersion(0)),
        num_samples: SAMPLES[index],
        metrics: [("loss".to_owned(), 0.5)].into(),
        form: protocol::Form::Json,
        update: ledger::one_hot(&zeros().schema(), index).unwrap(),
    };
    let origin = Origin { round_id: id("r"), proplet_id: update.proplet_id.clone() };
    let payload = forward(&update.seal().payload, &origin, Timestamp::ZERO);
    Envelope { topic: Topic::ForwardedUpdate, payload }
}

fn latest(version: u64, payload: &[u8]) -> Envelope {
    let version = ModelVersion(version);
    ModelLatest {
        version,
        topic: ModelUri::global(version),
        sha256: Digest::of(payload),
        bytes: payload.len() as u64,
        format: "json".into(),
    }
    .seal()
}

fn ack(index: usize) -> Topic {
    Topic::RoundAck { round: id("r"), proplet: id(&format!("p{index}")) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_survives_a_death_after_each_of_its_steps() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::default();
    let mut peer = Peer::connect(&broker);
    let model = Model::new(ModelVersion(0), zeros()).seal().payload;
    let topic = Topic::Model { uri: ModelUri::global(ModelVersion(0)) };
    peer.says(Envelope { topic, payload: model.clone() });
    peer.says(latest(0, &model));

    let running = Running::start(dir.path(), &broker);
    peer.asks(start(), &Topic::RoundOpened { round: id("r") }).await;
    running.dies().await;

    let mut running = Running::start(dir.path(), &broker);
    for index in 0..SAMPLES.len() {
        peer.says(update(index));
        let payload = peer.asks(update(index), &ack(index)).await;
        assert!(payload.windows(8).any(|word| word == b"accepted"), "{payload:?}");
        running.dies().await;
        running = Running::start(dir.path(), &broker);
    }
    let payload = peer.hears_payload(&Topic::ModelPublish { line: ModelLine::default() }).await;
    running.dies().await;
    let running = Running::start(dir.path(), &broker);
    assert_eq!(
        peer.hears_payload(&Topic::ModelPublish { line: ModelLine::default() }).await,
        payload,
        "the same bytes"
    );
    peer.says(latest(1, &payload));
    let complete = peer.hears_payload(&Topic::RoundComplete { round: id("r") }).await;
    let complete: RoundComplete = serde_json::from_slice(&complete).unwrap();

    let model: Model = serde_json::from_slice(&payload).unwrap();
    assert_eq!((model.version, complete.model_version), (ModelVersion(1), ModelVersion(1)));
    let members: Vec<Member> = SAMPLES
        .into_iter()
        .enumerate()
        .map(|(index, num_samples)| Member { index, num_samples, standing: Standing::Accepted })
        .collect();
    let claim = Claim { num_updates: complete.num_updates, total_samples: complete.total_samples };
    assert_eq!(ledger::check(&members, &model.tensors, claim), Ok([0, 1, 2].into()));

    running.stops().await;
    let running = Running::start(dir.path(), &broker);
    peer.asks(start(), &Topic::RoundComplete { round: id("r") }).await;
    running.stops().await;
}

/// A round of the session, based on `base`, averaged by `strategy`.
fn start_by(strategy: &str, base: u64) -> Envelope {
    let text = format!(
        r#"{{"round_id":"r{base}","model_uri":"{}","participants":["p0","p1","p2"],"k_of_n":3,
        "strategy":{{"name":"{strategy}"}}}}"#,
        ModelUri::global(ModelVersion(base))
    );
    serde_json::from_str::<RoundStart>(&text).unwrap().seal()
}

fn update_on(strategy: &str, base: u64, index: usize) -> Envelope {
    let values = (0..4).map(|at| (at + index as i32 * 3) as f64 / 8.0 + base as f64).collect();
    let tensor = Tensor::new(vec![4], values).unwrap();
    let change = (strategy == "scaffold").then(|| ("control/w".to_owned(), tensor.clone()));
    let update = Update {
        round_id: id(&format!("r{base}")),
        proplet_id: id(&format!("p{index}")),
        base_model_uri: ModelUri::global(ModelVersion(base)),
        num_samples: SAMPLES[index],
        metrics: [("loss_before".to_owned(), 0.5), ("steps".to_owned(), 4.0)].into(),
        form: protocol::Form::Json,
        update: [Some(("w".to_owned(), tensor)), change].into_iter().flatten().collect(),
    };
    let origin =
        Origin { round_id: update.round_id.clone(), proplet_id: update.proplet_id.clone() };
    let payload = forward(&update.seal().payload, &origin, Timestamp::ZERO);
    Envelope { topic: Topic::ForwardedUpdate, payload }
}

/// Three rounds, each on the model of the one before; the coordinator dies where it is told to.
async fn session(strategy: &str, deaths: bool) -> Vec<bytes::Bytes> {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::default();
    let mut peer = Peer::connect(&broker);
    let mut models = vec![Model::new(ModelVersion(0), zeros()).seal().payload];
    let mut running = Running::start(dir.path(), &broker);
    for base in 0..3 {
        let model = models.last().unwrap().clone();
        let topic = Topic::Model { uri: ModelUri::global(ModelVersion(base)) };
        peer.says(Envelope { topic, payload: model.clone() });
        peer.says(latest(base, &model));
        let round = id(&format!("r{base}"));
        peer.asks(start_by(strategy, base), &Topic::RoundOpened { round }).await;
        for index in 0..SAMPLES.len() {
            let proplet = id(&format!("p{index}"));
            let ack = Topic::RoundAck { round: id(&format!("r{base}")), proplet };
            let payload = peer.asks(update_on(strategy, base, index), &ack).await;
            assert!(payload.windows(8).any(|word| word == b"accepted"), "{strategy} {payload:?}");
            if deaths {
                running.dies().await;
                running = Running::start(dir.path(), &broker);
            }
        }
        let made = Topic::ModelPublish { line: ModelLine::default() };
        let mut payload = peer.hears_payload(&made).await;
        if deaths {
            running.dies().await;
            running = Running::start(dir.path(), &broker);
            payload = peer.hears_payload(&made).await;
        }
        let complete = Topic::RoundComplete { round: id(&format!("r{base}")) };
        peer.asks(latest(base + 1, &payload), &complete).await;
        models.push(payload);
    }
    running.stops().await;
    models
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_strategy_remembers_survives_deaths_at_every_step() {
    for strategy in aggregate::STRATEGIES {
        let calm = session(strategy.name, false).await;
        assert_eq!(session(strategy.name, true).await, calm, "{strategy:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strategy_that_rounds_cannot_use_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::default();
    let mut peer = Peer::connect(&broker);
    let running = Running::start(dir.path(), &broker);
    let why = peer.asks(start_by("best", 0), &Topic::RoundFailed { round: id("r0") }).await;
    let why: serde_json::Value = serde_json::from_slice(&why).unwrap();
    assert!(why["error"].as_str().unwrap().contains("best"), "{why}");
    running.stops().await;
}

#[test]
fn bad_settings_name_the_key_and_what_it_takes() {
    for (flag, value, word) in [
        ("--strategy", "best", "fedavg"),
        ("--strategy", "scaffold", "fednova"),
        ("--clip-norm", "0", "above 0"),
        ("--clip-norm", "NaN", "above 0"),
        ("--clip-mode", "maim", "reject"),
        ("--share-max", "1", "below 1"),
        ("--samples-max", "0", "2^53"),
        ("--update-bytes-max", "1000000000", "268435456"),
        ("--unknown-round-grace-s", "-1", "3600"),
    ] {
        let words = [format!("{flag}={value}").into()];
        let why = resolve::<CoordinatorSettings>(&words, &Environment::default()).unwrap_err();
        let why = why.to_string();
        assert!(why.contains(flag) && why.contains(value) && why.contains(word), "{why}");
    }
}
