//! Models that are too large for one message, through the whole model server on a broker in memory:
//! taken in pieces, shown in pieces, and gone on with after a death.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "these are tests")]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use bytes::Bytes;
use model_server::ModelServerSettings;
use protocol::{
    Digest, Envelope, Filter, Form, Letter as _, Manifest, ModelLine, ModelUri, ModelVersion,
    Tensor, Tensors, Timestamp, Topic,
    manifest::Format,
    message::{Model, ModelBlob, ModelLatest, ModelPublishWants, ModelWants, is_blob_form},
};
use service::{
    Inbound, Transport as _,
    settings::{Environment, Resolved, resolve},
    transport::memory::{Broker, Memory},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use transfer::{Assembly, Offer, OfferRules, Rules, Step, Way};

/// What the broker is said to take.
const LIMIT: &str = "16384";
const CHUNK: u32 = 15 << 10;

fn settings(dir: &Path, more: &[&str]) -> ModelServerSettings {
    let words = ["--state-dir", dir.to_str().unwrap(), "--payload-bytes-max", LIMIT];
    let words: Vec<_> = words.iter().chain(more).map(Into::into).collect();
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
    fn start(dir: &Path, broker: &Broker, more: &[&str]) -> Self {
        let stop = CancellationToken::new();
        let settings = settings(dir, more);
        let (transport, stopped) = (broker.connect("model-server", None), stop.clone());
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

/// A model of about 200 KB.
fn model(version: u64) -> Bytes {
    let values: Vec<f32> = (0..50_000).map(|n| n as f32 + version as f32).collect();
    let tensors: Tensors =
        [("w".to_owned(), Tensor::from_f32(vec![50_000], &values).unwrap())].into_iter().collect();
    Model { version: ModelVersion(version), tensors, form: Form::Safetensors }.write()
}

fn manifest(model: &[u8]) -> Manifest {
    Manifest::of(model, CHUNK, Format::safetensors()).unwrap()
}

/// Somebody on the broker who hears what there is, and what becomes of it.
struct Peer {
    transport: Memory,
    /// What is retained of models and pieces, as far as it was listened to.
    heard: BTreeMap<Topic, Bytes>,
}

impl Peer {
    fn connect(broker: &Broker, client_id: &str) -> Self {
        let mut transport = broker.connect(client_id, None);
        transport.listen(Filter::Everything);
        Self { transport, heard: BTreeMap::new() }
    }

    fn says(&mut self, envelope: Envelope) {
        self.transport.publish(envelope, None);
    }

    async fn next(&mut self) -> Envelope {
        let found = async {
            loop {
                if let Inbound::Message { envelope, receipt } = self.transport.next().await.unwrap()
                {
                    self.transport.ack(receipt);
                    return envelope;
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(60), found).await;
        let envelope =
            found.unwrap_or_else(|_| panic!("nothing comes any more: {:?}", self.said()));
        if envelope.payload.is_empty() {
            self.heard.remove(&envelope.topic);
        } else {
            self.heard.insert(envelope.topic.clone(), envelope.payload.clone());
        }
        envelope
    }

    fn said(&self) -> Vec<String> {
        self.heard.keys().map(ToString::to_string).collect()
    }

    /// Answers the model server until it shows this version, or has asked so often.
    async fn gives(&mut self, version: u64, bytes: &Bytes, asks_max: usize) {
        let manifest = manifest(bytes);
        let mut offer = Offer::new(manifest.clone(), OfferRules::default());
        let version = ModelVersion(version);
        self.says(ModelBlob { version, blob: manifest.clone() }.seal());
        let mut asks = 0;
        loop {
            let envelope = self.next().await;
            match envelope.topic {
                Topic::ModelPublishWants { .. } => {
                    let wants =
                        ModelPublishWants::read(ModelLine::default(), &envelope.payload).unwrap();
                    assert_eq!(wants.version, version);
                    let mut reads = offer.wanted(&wants.wants, Timestamp::ZERO).unwrap();
                    while let Some(index) = reads.pop() {
                        let from = manifest.offset(index) as usize;
                        let payload = bytes.slice(from..from + manifest.len_of(index));
                        self.says(Envelope {
                            topic: Topic::ModelPublishChunk {
                                uri: ModelUri::global(version),
                                index,
                            },
                            payload,
                        });
                        reads.extend(offer.sent(index, Timestamp::ZERO));
                    }
                    asks += 1;
                    if asks == asks_max {
                        return;
                    }
                }
                Topic::ModelLatest { .. } => {
                    let latest: ModelLatest = serde_json::from_slice(&envelope.payload).unwrap();
                    if latest.version == version {
                        assert_eq!(latest.sha256, manifest.sha256());
                        return;
                    }
                }
                _ => {}
            }
        }
    }

    async fn until(&mut self, wanted: impl Fn(&Self) -> bool) {
        while !wanted(self) {
            self.next().await;
        }
    }

    fn pieces(&self, version: u64) -> usize {
        let of = |topic: &&Topic| matches!(topic, Topic::ModelChunk { uri, .. } if uri.version.0 == version);
        self.heard.keys().filter(of).count()
    }
}

/// Fetches a version as a proplet does: by listening to its pieces.
async fn fetch(broker: &Broker, client_id: &str, version: u64) -> Bytes {
    let version = ModelVersion(version);
    let mut transport = broker.connect(client_id, None);
    transport.listen(Filter::Exactly(Topic::Model { uri: ModelUri::global(version) }));
    let mut assembly: Option<Assembly> = None;
    let mut pieces = BTreeMap::new();
    let fetched = async {
        loop {
            let Inbound::Message { envelope, receipt } = transport.next().await.unwrap() else {
                continue;
            };
            transport.ack(receipt);
            let mut steps = match (&envelope.topic, &mut assembly) {
                (Topic::Model { .. }, assembly @ None) => {
                    assert!(is_blob_form(&envelope.payload));
                    let blob: ModelBlob = envelope.open().unwrap();
                    let begun = Assembly::new(blob.blob, Way::Retained, Rules::default());
                    assembly.insert(begun).connected(Timestamp::ZERO)
                }
                (Topic::ModelChunk { index, .. }, Some(assembly)) => assembly
                    .chunk(*index, envelope.payload.clone(), Timestamp::ZERO)
                    .unwrap_or_default(),
                _ => vec![],
            };
            while !steps.is_empty() {
                match steps.remove(0) {
                    Step::Subscribe(index) => {
                        transport.listen(Filter::Exactly(Topic::ModelChunk {
                            uri: ModelUri::global(version),
                            index,
                        }));
                    }
                    Step::Unsubscribe(index) => {
                        transport.unlisten(&Filter::Exactly(Topic::ModelChunk {
                            uri: ModelUri::global(version),
                            index,
                        }));
                    }
                    Step::Store { index, bytes } => {
                        pieces.insert(index, bytes);
                        steps.extend(assembly.as_mut().unwrap().stored(index, Timestamp::ZERO));
                    }
                    Step::Done => return,
                    other => panic!("{other:?}"),
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), fetched).await.unwrap();
    pieces.into_values().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_model_is_taken_and_shown_in_pieces() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), Broker::default());
    let running = Running::start(dir.path(), &broker, &[]);
    let mut coordinator = Peer::connect(&broker, "coordinator");
    coordinator
        .until(|peer| peer.heard.contains_key(&Topic::ModelLatest { line: ModelLine::default() }))
        .await;
    let large = model(1);
    coordinator.gives(1, &large, usize::MAX).await;
    let file = fs::read(dir.path().join("global_model_v1.safetensors")).unwrap();
    assert_eq!(Digest::of(&file), Digest::of(&large));
    assert_eq!(fs::read_dir(dir.path().join("incoming")).unwrap().count(), 0);
    for client_id in ["p1", "p2"] {
        assert_eq!(Digest::of(&fetch(&broker, client_id, 1).await), Digest::of(&large));
    }
    // Said again, it is shown again and not fetched.
    let blob = ModelBlob { version: ModelVersion(1), blob: manifest(&large) };
    coordinator.heard.clear();
    coordinator.says(blob.seal());
    coordinator
        .until(|peer| peer.heard.contains_key(&blob.shown(&ModelLine::default()).topic))
        .await;
    assert!(
        !coordinator.heard.contains_key(&Topic::ModelPublishWants { line: ModelLine::default() }),
        "{:?}",
        coordinator.said()
    );
    running.stops().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_goes_on_after_a_death_where_it_was() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), Broker::default());
    let running = Running::start(dir.path(), &broker, &[]);
    let mut coordinator = Peer::connect(&broker, "coordinator");
    coordinator
        .until(|peer| peer.heard.contains_key(&Topic::ModelLatest { line: ModelLine::default() }))
        .await;
    let large = model(1);
    // 14 pieces; of one that is the next to be asked for, the earlier ones have been stored.
    let last = manifest(&large).count() - 1;
    let wide = Rules::default().window.chunks;
    assert!((last as usize) < wide, "all fit the window: the first ask is for all of them");
    let wants = async {
        coordinator.says(ModelBlob { version: ModelVersion(1), blob: manifest(&large) }.seal());
        loop {
            let envelope = coordinator.next().await;
            if matches!(envelope.topic, Topic::ModelPublishWants { .. }) {
                break ModelPublishWants::read(ModelLine::default(), &envelope.payload)
                    .unwrap()
                    .wants
                    .indexes;
            }
        }
    };
    let wants = wants.await;
    assert_eq!(wants.len(), last as usize + 1);
    for index in [0, 1, 2] {
        let from = (index * CHUNK) as usize;
        let payload = large.slice(from..from + CHUNK as usize);
        let topic = Topic::ModelPublishChunk { uri: ModelUri::global(ModelVersion(1)), index };
        coordinator.says(Envelope { topic, payload });
    }
    let partial = || {
        let mut files = fs::read_dir(dir.path().join("incoming")).unwrap();
        files.next().map_or(0, |file| file.unwrap().metadata().unwrap().len())
    };
    while partial() < u64::from(3 * CHUNK) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.dies().await;

    // It asks by itself, and only for what is missing.
    let running = Running::start(dir.path(), &broker, &[]);
    let wants = loop {
        let envelope = coordinator.next().await;
        if matches!(envelope.topic, Topic::ModelPublishWants { .. }) {
            break ModelPublishWants::read(ModelLine::default(), &envelope.payload)
                .unwrap()
                .wants
                .indexes;
        }
    };
    assert_eq!(wants, (3..=last).collect());
    for index in wants {
        let from = (index * CHUNK) as usize;
        let payload = large.slice(from..large.len().min(from + CHUNK as usize));
        let topic = Topic::ModelPublishChunk { uri: ModelUri::global(ModelVersion(1)), index };
        coordinator.says(Envelope { topic, payload });
    }
    assert_eq!(Digest::of(&fetch(&broker, "p", 1).await), Digest::of(&large));
    running.stops().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_of_older_models_go_and_come_back_when_they_are_wanted() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), Broker::default());
    let running = Running::start(dir.path(), &broker, &["--large-models-shown", "1"]);
    let mut coordinator = Peer::connect(&broker, "coordinator");
    coordinator
        .until(|peer| peer.heard.contains_key(&Topic::ModelLatest { line: ModelLine::default() }))
        .await;
    let models = [model(1), model(2)];
    for (version, model) in (1..).zip(&models) {
        coordinator.gives(version, model, usize::MAX).await;
    }
    coordinator.until(|peer| peer.pieces(1) == 0 && peer.pieces(2) == 14).await;
    coordinator.says(ModelWants { line: ModelLine::default(), version: ModelVersion(1) }.seal());
    assert_eq!(Digest::of(&fetch(&broker, "late", 1).await), Digest::of(&models[0]));
    coordinator.says(ModelWants { line: ModelLine::default(), version: ModelVersion(7) }.seal());
    coordinator.says(ModelWants { line: ModelLine::default(), version: ModelVersion(0) }.seal());
    running.dies().await;

    // A broker that lost everything is told everything; an older model comes when it is wanted.
    broker.crash();
    let mut late = Peer::connect(&broker, "late");
    let running = Running::start(dir.path(), &broker, &["--large-models-shown", "1"]);
    late.until(|peer| {
        peer.pieces(2) == 14
            && (0..3).all(|v| {
                peer.heard.contains_key(&Topic::Model { uri: ModelUri::global(ModelVersion(v)) })
            })
    })
    .await;
    assert_eq!(late.pieces(1), 0);
    assert_eq!(Digest::of(&fetch(&broker, "p", 2).await), Digest::of(&models[1]));
    running.stops().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_model_or_not_what_was_offered_is_thrown_away() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), Broker::default());
    let running = Running::start(dir.path(), &broker, &[]);
    let mut coordinator = Peer::connect(&broker, "coordinator");
    coordinator
        .until(|peer| peer.heard.contains_key(&Topic::ModelLatest { line: ModelLine::default() }))
        .await;
    let junk: Bytes = vec![0; 40_000].into();
    coordinator.gives(1, &junk, 1).await;
    // A model that says it is another version, and the right one at last.
    let incoming = dir.path().join("incoming");
    let is_empty = || fs::read_dir(&incoming).unwrap().count() == 0;
    let good = model(1);
    let mut tried = 0;
    for bytes in [model(5), good.clone()] {
        loop {
            // Offered until it is taken on, as a coordinator does.
            let blob = ModelBlob { version: ModelVersion(1), blob: manifest(&bytes) };
            coordinator.says(blob.seal());
            tokio::time::sleep(Duration::from_millis(20)).await;
            tried += 1;
            assert!(tried < 3000, "it is never taken");
            let names: Vec<String> = fs::read_dir(&incoming)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            if names.iter().any(|name| name.starts_with(&blob.blob.sha256().to_string())) {
                break;
            }
        }
        coordinator.gives(1, &bytes, 1).await;
        if bytes != good {
            while !is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    assert_eq!(Digest::of(&fetch(&broker, "p", 1).await), Digest::of(&good));
    assert!(is_empty());
    running.stops().await;
}
