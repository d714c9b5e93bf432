//! The coordinator's HTTP API on a real broker: what is asked there is what the broker hears.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "these are tests")]

use std::{collections::BTreeMap, ffi::OsString, net::SocketAddr, path::Path, time::Duration};

use broker::{BrokerConfig, RunningBroker};
use coordinator::{CoordinatorError, CoordinatorSettings};
use protocol::{
    Digest, Envelope, Filter, Letter as _, ModelLine, ModelUri, ModelVersion, Namespace, RoundId,
    Timestamp, Topic,
    message::{Model, ModelLatest, Origin, Purpose, RoundStart, forward},
};
use serde_json::{Value, json};
use service::{
    Inbound, Transport as _,
    settings::{Environment, Resolved, resolve},
    transport::mqtt::{Config, Mqtt},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time,
};
use tokio_util::sync::CancellationToken;

/// No test waits for anything longer than this; what it waits for comes much sooner.
const PATIENCE: Duration = Duration::from_secs(60);
/// How soon the peer says again what has had no effect.
const AGAIN: Duration = Duration::from_millis(200);

/// A broker, a coordinator, and one peer that is manager, proplets and model server.
struct World {
    broker: RunningBroker,
    at: SocketAddr,
    stop: CancellationToken,
    coordinator: JoinHandle<Result<(), CoordinatorError>>,
    peer: JoinHandle<()>,
    dir: TempDir,
}

#[derive(Debug)]
struct Said {
    status: u16,
    head: String,
    body: String,
}

impl Said {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }
}

fn settings(dir: &Path, broker: SocketAddr) -> CoordinatorSettings {
    let words: [OsString; 3] = [
        format!("--state-dir={}", dir.display()).into(),
        format!("--mqtt-address=tcp://{broker}").into(),
        "--http-port=0".into(),
    ];
    match resolve(&words, &Environment::default()).unwrap() {
        Resolved::Run(settings) => settings,
        Resolved::Print(text) => panic!("{text}"),
    }
}

impl World {
    async fn new() -> Self {
        let broker = broker::start(BrokerConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..BrokerConfig::default()
        });
        let broker = broker.await.unwrap();
        let dir = TempDir::new().unwrap();
        let peer = tokio::spawn(play(broker.address()));
        let (at, stop, coordinator) = start(dir.path(), broker.address()).await;
        let world = Self { broker, at, stop, coordinator, peer, dir };
        world.until("/health", |said| said.status == 200).await;
        // The model server has to be heard before a model can be numbered.
        world.until("/fl/models", |said| !said.json()["latest"].is_null()).await;
        world
    }

    async fn restart(mut self) -> Self {
        self.stop.cancel();
        self.coordinator.await.unwrap().unwrap();
        (self.at, self.stop, self.coordinator) =
            start(self.dir.path(), self.broker.address()).await;
        self.until("/health", |said| said.status == 200).await;
        self
    }

    async fn stop(self) {
        self.stop.cancel();
        self.coordinator.await.unwrap().unwrap();
        self.peer.abort();
        self.broker.stop().await;
    }

    async fn get(&self, path: &str) -> Said {
        call(self.at, "GET", path, "").await
    }

    async fn post(&self, path: &str, body: &Value) -> Said {
        call(self.at, "POST", path, &body.to_string()).await
    }

    async fn until(&self, path: &str, good: impl Fn(&Said) -> bool) -> Said {
        let asking = async {
            loop {
                let said = self.get(path).await;
                if good(&said) {
                    return said;
                }
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{path} took too long"))
    }
}

async fn start(
    dir: &Path,
    broker: SocketAddr,
) -> (SocketAddr, CancellationToken, JoinHandle<Result<(), CoordinatorError>>) {
    let stop = CancellationToken::new();
    let (ready, at) = oneshot::channel();
    let running = coordinator::run_with(settings(dir, broker), stop.clone(), ready);
    let running = tokio::spawn(running);
    (at.await.unwrap(), stop, running)
}

async fn call(at: SocketAddr, method: &str, path: &str, body: &str) -> Said {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Said { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// Proplets that answer every start until the round is over, as proplets do until they have their
/// verdict, and a model server that shows every model.
async fn play(broker: SocketAddr) {
    let (domain, channel) = ("demo".parse().unwrap(), "fl".parse().unwrap());
    let namespace = Namespace::new("", &domain, &channel).unwrap();
    let address = format!("tcp://{broker}").parse().unwrap();
    let mut transport = Mqtt::connect(Config::new(address, "peer".to_owned(), namespace));
    transport.listen(Filter::Exactly(Topic::RoundStart));
    transport.listen(Filter::Exactly(Topic::ModelPublish { line: ModelLine::default() }));
    let model = Model::read(&br#"{"w":[0.0,0.0,0.0],"b":0.0,"version":0}"#[..].into()).unwrap();
    show(&mut transport, ModelVersion(0), model.seal().payload);
    transport.listen(Filter::AnyComplete);
    let mut unheard: BTreeMap<RoundId, Vec<Envelope>> = BTreeMap::new();
    loop {
        let inbound = match time::timeout(AGAIN, transport.next()).await {
            Ok(Ok(inbound)) => inbound,
            Ok(Err(_)) => return,
            Err(_) => {
                for update in unheard.values().flatten() {
                    transport.publish(update.clone(), None);
                }
                continue;
            }
        };
        let Inbound::Message { envelope, receipt } = inbound else { continue };
        match envelope.topic {
            Topic::RoundStart => {
                let start: RoundStart = envelope.open().unwrap();
                let answers =
                    start.participants.iter().filter_map(|id| answer(&start, id.as_str()));
                let answers: Vec<Envelope> = answers.collect();
                for update in &answers {
                    transport.publish(update.clone(), None);
                }
                unheard.insert(start.round_id, answers);
            }
            Topic::RoundComplete { round } => drop(unheard.remove(&round)),
            Topic::ModelPublish { .. } => {
                let version = Model::read(&envelope.payload).unwrap().version;
                show(&mut transport, version, envelope.payload);
            }
            _ => {}
        }
        transport.ack(receipt);
    }
}

fn show(transport: &mut Mqtt, version: ModelVersion, payload: bytes::Bytes) {
    let (sha256, bytes) = (Digest::of(&payload), payload.len() as u64);
    let latest = ModelLatest {
        version,
        topic: ModelUri::global(version),
        sha256,
        bytes,
        format: "json".to_owned(),
    };
    transport.publish(
        Envelope { topic: Topic::Model { uri: ModelUri::global(version) }, payload },
        None,
    );
    transport.publish(latest.seal(), None);
}

/// Nobody called `silent-...` answers.
fn answer(start: &RoundStart, proplet: &str) -> Option<Envelope> {
    if proplet.starts_with("silent") {
        return None;
    }
    let (update, metrics) = match start.purpose {
        Purpose::Train => (json!({"w": [1.0, 2.0, 3.0], "b": 0.5}), json!({"loss": 0.5})),
        Purpose::Evaluate => (json!({}), json!({"accuracy": 0.75, "a,\"b\"": 2.0})),
    };
    let update = json!({
        "round_id": start.round_id, "proplet_id": proplet, "num_samples": 10,
        "base_model_uri": start.model_uri, "metrics": metrics, "update": update,
    });
    let origin = Origin { round_id: start.round_id.clone(), proplet_id: proplet.parse().unwrap() };
    let payload = forward(update.to_string().as_bytes(), &origin, Timestamp::ZERO);
    Some(Envelope { topic: Topic::ForwardedUpdate, payload })
}

fn base() -> String {
    ModelUri::global(ModelVersion(0)).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_is_started_looked_at_and_found_again() {
    let world = World::new().await;
    let start = json!({
        "round_id": "r-1", "model_uri": base(), "participants": ["a", "b"], "k_of_n": 2,
    });
    let said = world.post("/fl/rounds", &start).await;
    assert_eq!(said.status, 201, "{said:?}");
    assert!(said.head.contains("location: /fl/rounds/r-1"), "{said:?}");
    let done = world.until("/fl/rounds/r-1", |said| said.json()["state"] == "Complete").await;
    assert_eq!(done.json()["model_version"], 1, "{done:?}");
    assert_eq!(world.post("/fl/rounds", &start).await.status, 200);
    let mut other = start.clone();
    other["k_of_n"] = json!(1);
    assert_eq!(world.post("/fl/rounds", &other).await.status, 409);

    let silent = json!({"model_uri": base(), "participants": ["silent-1"], "timeout_s": 3000});
    let said = world.post("/fl/rounds", &silent).await;
    let location = said.head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap();
    let open = world.get(location).await.json();
    assert_eq!((&open["state"], &open["stage"]), (&json!("Open"), &json!("collecting")), "{open}");

    let look = json!({
        "round_id": "e-1", "model_uri": base(), "participants": ["a", "b"], "purpose": "evaluate",
    });
    assert_eq!(world.post("/fl/rounds", &look).await.status, 201);
    let done = world.until("/fl/rounds/e-1", |said| said.json()["state"] == "Complete").await;
    let done = done.json();
    assert_eq!(done["quantiles"]["accuracy"]["median"], 0.75, "{done}");
    assert_eq!(done["model_version"], 0, "{done}");

    let world = world.restart().await;
    let page = world.get("/fl/rounds?limit=2").await.json();
    assert_eq!(
        (&page["total"], page["rounds"].as_array().unwrap().len()),
        (&json!(3), 2),
        "{page}"
    );
    assert_eq!(page["rounds"][0]["state"], "Open", "{page}");
    let models = world.get("/fl/models").await.json();
    assert_eq!((&models["total"], &models["models"][0]["version"]), (&json!(1), &json!(1)));
    let latest = &world.until("/fl/models", |it| !it.json()["latest"].is_null()).await.json();
    assert_eq!(models["models"][0]["sha256"], latest["latest"]["sha256"], "{latest}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_started_and_its_history_is_kept_and_exported() {
    let world = World::new().await;
    let start = json!({
        "session_id": "s-1", "rounds": 4, "selection": {"participants": ["a", "b", "c"]},
        "evaluate": {"every": 2, "central": "judge"}, "file": "AGFzbQEAAAA=",
    });
    let said = world.post("/fl/sessions", &start).await;
    assert_eq!(said.status, 201, "{said:?}");
    assert!(said.head.contains("location: /fl/sessions/s-1"), "{said:?}");
    let done = world.until("/fl/sessions/s-1", |said| said.json()["state"] == "Complete").await;
    let done = done.json();
    assert_eq!((&done["rounds_done"], &done["start"]["file"]), (&json!(4), &Value::Null), "{done}");
    assert_eq!(done["metrics"]["central_accuracy"], 0.75, "{done}");
    assert_eq!(world.post("/fl/sessions", &start).await.status, 200);
    assert_eq!(world.post("/fl/sessions/s-1/resume", &json!({})).await.status, 409);

    let world = world.restart().await;
    let page = world.get("/fl/sessions/s-1/history?offset=1&limit=2").await.json();
    let rows = page["rows"].as_array().unwrap();
    assert_eq!((&page["total"], rows.len()), (&json!(4), 2), "{page}");
    assert_eq!((&rows[0]["round"], &rows[0]["model_version"]), (&json!(2), &json!(2)));
    assert_eq!(rows[0]["series"]["eval_accuracy_p10"], 0.75, "{page}");
    assert_eq!(rows[0]["evaluations"].as_array().unwrap().len(), 2, "{page}");
    assert!(rows[1].get("evaluations").is_none(), "{page}");
    let csv = world.get("/fl/sessions/s-1/history.csv").await;
    assert!(csv.head.contains("text/csv"), "{csv:?}");
    let lines: Vec<&str> = csv.body.trim_end().split("\r\n").collect();
    assert_eq!(lines.len(), 5, "{csv:?}");
    assert!(lines[0].starts_with("round,round_id,model_version,participants"), "{csv:?}");
    assert!(lines[0].contains(",\"central_a,\"\"b\"\"\","), "{csv:?}");
    assert!(lines[1].starts_with("1,s-1-r1,1,3,3,30,"), "{csv:?}");
    let list = world.get("/fl/sessions").await.json();
    assert_eq!((&list["total"], &list["sessions"][0]["session_id"]), (&json!(1), &json!("s-1")));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_stopped_and_resumed() {
    let world = World::new().await;
    let start =
        json!({"rounds": 2, "selection": {"participants": ["silent-1"]}, "timeout_s": 3000});
    let said = world.post("/fl/sessions", &start).await;
    let id = said.json()["session_id"].as_str().unwrap().to_owned();
    let at = |what: &str| format!("/fl/sessions/{id}{what}");
    let stopped = world.post(&at("/stop"), &json!({})).await;
    assert_eq!((stopped.status, &stopped.json()["state"]), (200, &json!("Stopped")));
    let world = world.restart().await;
    assert_eq!(world.get(&at("")).await.json()["state"], "Stopped");
    let resumed = world.post(&at("/resume"), &json!({})).await;
    assert_eq!((resumed.status, &resumed.json()["state"]), (200, &json!("Running")));
    assert_eq!(world.get(&at("/history")).await.json()["total"], 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_is_said_with_the_value() {
    let world = World::new().await;
    let round = |more: Value| {
        let mut start = json!({"model_uri": base(), "participants": ["a"]});
        start.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        start.to_string()
    };
    let many = round(json!({"strategy": {"name": "magic"}}));
    for (status, method, path, body, words) in [
        (400, "POST", "/fl/rounds", "[]", "a JSON object"),
        (400, "POST", "/fl/rounds", "{}", "model_uri"),
        (400, "POST", "/fl/rounds", &round(json!({"timeout_s": 0})), "timeout_s"),
        (400, "POST", "/fl/rounds", &round(json!({"round_id": "a/b"})), "'/'"),
        (400, "POST", "/fl/rounds", &many, "magic"),
        (400, "POST", "/fl/sessions", "{}", "rounds"),
        (400, "POST", "/fl/sessions", r#"{"rounds":1,"ruonds":2}"#, "ruonds"),
        (400, "POST", "/fl/sessions", r#"{"rounds":1,"evaluate":{"every":0}}"#, "every"),
        (400, "POST", "/fl/sessions", r#"{"rounds":1,"k_of_n":0}"#, "k_of_n"),
        (400, "GET", "/fl/rounds?limit=0", "", "limit takes 1 to 1000"),
        (400, "GET", "/fl/sessions/a%2Fb", "", "in the path"),
        (404, "GET", "/fl/rounds/nope", "", "nope"),
        (404, "GET", "/fl/sessions/nope", "", "nope"),
        (404, "GET", "/fl/sessions/nope/history", "", "nope"),
        (404, "GET", "/fl/sessions/nope/history.csv", "", "nope"),
        (404, "POST", "/fl/sessions/nope/stop", "", "nope"),
        (404, "GET", "/fl/nothing", "", "/fl/nothing"),
        (405, "DELETE", "/fl/rounds", "", "DELETE"),
    ] {
        let said = call(world.at, method, path, body).await;
        assert_eq!(said.status, status, "{method} {path} {body}: {said:?}");
        let error = said.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(words), "{method} {path} {body}: {error}");
    }
    let figures = world.get("/metrics").await;
    assert!(figures.body.contains("aileron_starts_refused_total 1"), "{}", figures.body);
    assert!(figures.body.contains("aileron_broker_connected 1"), "{}", figures.body);
    let described = world.get("/openapi.json").await.json();
    let paths: BTreeMap<String, Value> =
        serde_json::from_value(described["paths"].clone()).unwrap();
    assert!(paths.contains_key("/fl/sessions/{id}/history.csv"), "{paths:?}");
    world.stop().await;
}
