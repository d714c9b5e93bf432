//! Every message's JSON, pinned in `tests/golden/`, and `docs/topics.md`, made from the topic
//! table and those files. `AILERON_BLESS=1 cargo test -p protocol` writes both anew.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use protocol::{
    AbsentReason, Digest, Envelope, FailReason, Form, Letter, Manifest, ModelLine, ModelUri,
    ModelVersion, Rejection, Tensor, Tensors, Timestamp, Topic,
    manifest::Format,
    message::{
        AliveStatus, Best, Command, FailureCode, HeldTask, Hyperparams, Model, ModelBlob,
        ModelLatest, ModelPublishWants, ModelWants, ModuleWants, Origin, PropletAlive,
        PropletCreate, PropletMetrics, RoundAbsent, RoundComplete, RoundFailed, RoundOpened,
        RoundStart, RoundVariate, SessionCommand, SessionStart, SessionState, SessionStatus,
        TaskMetrics, TaskResults, TaskStart, TaskState, TaskStop, Update, UpdateAck, UpdateOffer,
        UpdateWants, Verdict, Wants, forward,
    },
    topic::TOPICS,
};
use serde_json::{Value, json};

#[test]
fn every_message_has_the_form_that_is_written_down() {
    for (name, envelope) in letters() {
        let value: Value = serde_json::from_slice(&envelope.payload).unwrap();
        pin(&here(&format!("tests/golden/{name}.json")), &pretty(&value));
    }
}

#[test]
fn the_field_order_on_the_wire_is_the_one_of_the_contract() {
    let (_, forwarded) = letters().into_iter().find(|(name, _)| *name == "forwarded").unwrap();
    assert!(forwarded.payload.ends_with(b"\"forwarded_at\":\"2026-01-12T10:30:15Z\"}"));
    let model = String::from_utf8(model().seal().payload.to_vec()).unwrap();
    assert_eq!(model, r#"{"b":0.25,"w":[0.08,-0.02,0.95],"version":1}"#);
}

#[test]
fn the_topic_page_says_what_the_code_says() {
    pin(&here("../../docs/topics.md"), &page());
}

fn page() -> String {
    let mut page = String::from(
        "# Topics\n\nGenerated from `crates/protocol/src/topic.rs` and the golden messages beside \
         its tests; a test keeps it\ntrue. `{B}` is `m/{domain_id}/c/{channel_id}`, by default \
         `m/demo/c/fl`. A topic prefix, if one is set,\nstands before every topic. Everything \
         travels at QoS 1, and every topic has one writer.\n\n\
         | topic | writer | readers | retained | payload |\n|---|---|---|---|---|\n",
    );
    for row in TOPICS {
        let retained = if row.retained { "**yes**" } else { "no" };
        writeln!(
            page,
            "| `{}` | {} | {} | {retained} | {} |",
            row.pattern, row.writer, row.readers, row.payload
        )
        .unwrap();
    }
    page.push_str("\n## Payloads\n\nReaders ignore fields they do not know.\n");
    for (name, envelope) in letters() {
        let value: Value = serde_json::from_slice(&envelope.payload).unwrap();
        write!(page, "\n### {name}\non `{}`\n```json\n{}```\n", envelope.topic, pretty(&value))
            .unwrap();
    }
    page
}

fn letters() -> Vec<(&'static str, Envelope)> {
    vec![
        ("round_start", start().seal()),
        ("round_opened", opened().seal()),
        ("update", update().seal()),
        ("update_offer", update_offer().seal()),
        ("forwarded", forwarded()),
        ("update_wants", update_wants().seal()),
        ("update_ack", ack(Verdict::Accepted).seal()),
        ("update_ack_rejected", ack(Verdict::Rejected(Rejection::NotFinite)).seal()),
        ("round_absent", absent().seal()),
        ("model", model().seal()),
        ("model_blob", model_blob().seal()),
        ("model_publish_wants", model_publish_wants().seal()),
        ("model_wants", ModelWants { line: ModelLine::default(), version: ModelVersion(1) }.seal()),
        ("module_wants", module_wants().seal()),
        ("model_latest", latest().seal()),
        ("round_complete", complete().seal()),
        ("round_failed", failed().seal()),
        ("round_variate", variate().seal()),
        ("proplet_create", create().seal()),
        ("proplet_alive", alive().seal()),
        ("proplet_metrics", metrics().seal()),
        ("task_start", task_start().seal()),
        ("task_start_blob", task_start_blob().seal()),
        ("task_stop", task_stop().seal()),
        ("task_results", results().seal()),
        ("task_metrics", task_metrics().seal()),
        ("session_start", session_start().seal()),
        ("session_command", session_command()),
        ("session_status", session_status().seal()),
    ]
}

fn start() -> RoundStart {
    RoundStart {
        round_id: "r-1768464194".parse().unwrap(),
        model_uri: ModelUri::global(ModelVersion(0)),
        task_wasm_image: Some("oci://registry.example/fl-client:1".to_owned()),
        file: None,
        participants: ["proplet-1", "proplet-2", "proplet-3"].map(|id| id.parse().unwrap()).into(),
        hyperparams: Hyperparams::parse(r#"{"epochs":1,"lr":0.01,"batch_size":16}"#).unwrap(),
        k_of_n: 3,
        timeout_s: 30,
        min_updates: None,
        strategy: None,
        clip: None,
        share_max: None,
        env: BTreeMap::new(),
        session: None,
        encoding: None,
        purpose: protocol::message::Purpose::Train,
        staleness_max: None,
        traceparent: None,
    }
}

fn variate() -> RoundVariate {
    let tensors = [
        ("w".to_owned(), Tensor::new(vec![3], vec![0.02, 0.0, -0.15]).unwrap()),
        ("b".to_owned(), Tensor::scalar(0.4)),
    ];
    RoundVariate {
        round_id: "r-1768464194".parse().unwrap(),
        series: "r-1768460000".parse().unwrap(),
        version: ModelVersion(3),
        tensors: tensors.into_iter().collect(),
        form: Form::Json,
    }
}

fn opened() -> RoundOpened {
    RoundOpened {
        round_id: "r-1768464194".parse().unwrap(),
        model_uri: ModelUri::global(ModelVersion(0)),
        participants: 3,
        k_of_n: 3,
        deadline: at(30),
    }
}

fn update() -> Update {
    Update {
        round_id: "r-1768464194".parse().unwrap(),
        proplet_id: "proplet-1".parse().unwrap(),
        base_model_uri: ModelUri::global(ModelVersion(0)),
        num_samples: 512,
        metrics: [("loss".to_owned(), 0.73)].into(),
        update: tensors([0.12, -0.05, 1.01], 0.33),
        form: Form::Json,
    }
}

fn update_offer() -> UpdateOffer {
    let Update { round_id, proplet_id, base_model_uri, num_samples, metrics, .. } = update();
    let blob = blob(Format::safetensors());
    UpdateOffer { round_id, proplet_id, base_model_uri, num_samples, metrics, blob }
}

fn update_wants() -> UpdateWants {
    let Update { round_id, proplet_id, .. } = update();
    UpdateWants { round_id, proplet_id, wants: wants() }
}

fn model_blob() -> ModelBlob {
    ModelBlob { version: ModelVersion(1), blob: blob(Format::safetensors()) }
}

fn model_publish_wants() -> ModelPublishWants {
    ModelPublishWants { line: ModelLine::default(), version: ModelVersion(1), wants: wants() }
}

fn module_wants() -> ModuleWants {
    let proplet_id = "proplet-1".parse().unwrap();
    ModuleWants { proplet_id, sha256: blob(Format::wasm()).sha256() }
}

fn wants() -> Wants {
    Wants { sha256: blob(Format::safetensors()).sha256(), indexes: [0, 1].into() }
}

fn blob(format: Format) -> Manifest {
    Manifest::of(&[7; 1500], 1024, format).unwrap()
}

fn task_start_blob() -> TaskStart {
    TaskStart { file: None, file_blob: Some(blob(Format::wasm())), ..task_start() }
}

fn forwarded() -> Envelope {
    let update = update();
    let origin =
        Origin { round_id: update.round_id.clone(), proplet_id: update.proplet_id.clone() };
    let payload = forward(&update.seal().payload, &origin, at(15));
    Envelope { topic: Topic::ForwardedUpdate, payload }
}

fn ack(verdict: Verdict) -> UpdateAck {
    UpdateAck {
        round_id: "r-1768464194".parse().unwrap(),
        proplet_id: "proplet-1".parse().unwrap(),
        verdict,
    }
}

fn absent() -> RoundAbsent {
    RoundAbsent {
        round_id: "r-1768464194".parse().unwrap(),
        proplet_id: "proplet-3".parse().unwrap(),
        reason: AbsentReason::TaskFailed,
        error: Some("trap: unreachable".to_owned()),
    }
}

fn model() -> Model {
    Model::new(ModelVersion(1), tensors([0.08, -0.02, 0.95], 0.25))
}

fn latest() -> ModelLatest {
    let payload = model().seal().payload;
    ModelLatest {
        version: ModelVersion(1),
        topic: ModelUri::global(ModelVersion(1)),
        sha256: Digest::of(&payload),
        bytes: payload.len() as u64,
        format: "json".to_owned(),
    }
}

fn complete() -> RoundComplete {
    RoundComplete {
        round_id: "r-1768464194".parse().unwrap(),
        model_version: ModelVersion(1),
        model_topic: ModelUri::global(ModelVersion(1)),
        num_updates: 3,
        total_samples: 1536,
        completed_at: at(45),
        duration_ms: 45_000,
        participants: ["proplet-1", "proplet-2", "proplet-3"].map(|id| id.parse().unwrap()).into(),
        metrics: [("loss".to_owned(), 0.73)].into(),
        contributions: BTreeMap::new(),
        rejected: [(Rejection::NotFinite, 1)].into(),
        purpose: protocol::message::Purpose::Train,
        quantiles: BTreeMap::new(),
        late: 0,
        outstanding: std::collections::BTreeSet::new(),
    }
}

fn failed() -> RoundFailed {
    RoundFailed {
        round_id: "r-1768464194".parse().unwrap(),
        reason: FailReason::TooFewUpdates,
        num_updates: 0,
        k_of_n: 3,
        failed_at: at(30),
        error: None,
        outstanding: std::collections::BTreeSet::new(),
    }
}

fn create() -> PropletCreate {
    PropletCreate {
        proplet_id: "proplet-1".parse().unwrap(),
        namespace: "default".to_owned(),
        metadata: [("directed".to_owned(), json!(true)), ("arch".to_owned(), json!("aarch64"))]
            .into(),
        tasks: Some(vec![held()]),
    }
}

fn alive() -> PropletAlive {
    PropletAlive {
        proplet_id: "proplet-1".parse().unwrap(),
        status: AliveStatus::Alive,
        namespace: "default".to_owned(),
        tasks: Some(vec![held()]),
    }
}

fn held() -> HeldTask {
    HeldTask { id: task_id(), attempt: 1 }
}

fn metrics() -> PropletMetrics {
    PropletMetrics {
        proplet_id: "proplet-1".parse().unwrap(),
        namespace: "default".to_owned(),
        cpu_percent: 12.5,
        memory_bytes: 18_874_368,
        uptime_s: 60,
    }
}

fn task_start() -> TaskStart {
    TaskStart {
        id: task_id(),
        name: "fl-round-r-1768464194-proplet-1".to_owned(),
        image_url: None,
        file: Some("AGFzbQEAAAA=".to_owned()),
        file_blob: None,
        module_signature: None,
        inputs: vec![],
        cli_args: vec![],
        env: [("ROUND_ID", "r-1768464194"), ("PROPLET_ID", "proplet-1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        daemon: false,
        proplet_id: Some("proplet-1".parse().unwrap()),
        state: TaskState::Scheduled,
        attempt: 1,
        traceparent: None,
        directed: true,
    }
}

fn task_stop() -> TaskStop {
    TaskStop {
        id: task_id(),
        proplet_id: Some("proplet-1".parse().unwrap()),
        broadcast: None,
        directed: false,
    }
}

fn results() -> TaskResults {
    TaskResults {
        task_id: task_id(),
        proplet_id: "proplet-1".parse().unwrap(),
        results: json!(null),
        error: Some("the guest ran longer than 600 s".to_owned()),
        attempt: Some(1),
        code: Some(FailureCode("timeout".to_owned())),
    }
}

fn task_metrics() -> TaskMetrics {
    TaskMetrics {
        task_id: task_id(),
        proplet_id: "proplet-1".parse().unwrap(),
        attempt: 1,
        wall_ms: 52.5,
        cpu_ms: 50.25,
        memory_bytes: 2_097_152,
        fuel: None,
        module: "disk".to_owned(),
        compile_ms: 0.25,
        start_us: 11.5,
    }
}

fn session_start() -> SessionStart {
    let start = json!({
        "session_id": "s-1", "rounds": 50, "hyperparams": {"epochs": 5, "lr": 0.1},
        "selection": {"method": "random", "count": 20, "over": 1.3, "tags": ["north"]},
        "target": {"metric": "accuracy", "op": ">=", "value": 0.95},
        "patience": {"metric": "accuracy", "op": ">=", "rounds": 10, "min_delta": 0.001},
        "strategy": {"name": "trimmed_mean", "params": {}}, "timeout_s": 60, "seed": 7,
    });
    serde_json::from_value(start).unwrap()
}

fn session_command() -> Envelope {
    let topic = Topic::SessionCommand { session: "s-1".parse().unwrap() };
    let payload = serde_json::to_vec(&SessionCommand { command: Command::Stop }).unwrap();
    Envelope { topic, payload: payload.into() }
}

fn session_status() -> SessionStatus {
    SessionStatus {
        session_id: "s-1".parse().unwrap(),
        state: SessionState::Running,
        rounds_done: 12,
        rounds: 50,
        model_uri: Some(ModelUri::global(ModelVersion(12))),
        metrics: BTreeMap::from([("accuracy".to_owned(), 0.91)]),
        best: Some(Best {
            metric: "accuracy".to_owned(),
            value: 0.92,
            model_version: ModelVersion(11),
            round: 11,
        }),
        started_at: at(0),
        updated_at: at(45),
        detail: None,
        refused: None,
    }
}

fn task_id() -> protocol::TaskId {
    "3f2b1c3e-5d1b-4c0e-9a57-1f4f3a9f7b10".parse().unwrap()
}

fn tensors(w: [f64; 3], b: f64) -> Tensors {
    [
        ("w".to_owned(), Tensor::new(vec![3], w.to_vec()).unwrap()),
        ("b".to_owned(), Tensor::scalar(b)),
    ]
    .into_iter()
    .collect()
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_micros((1_768_213_800 + second) * 1_000_000)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

fn here(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[track_caller]
fn pin(path: &PathBuf, now: &str) {
    if std::env::var_os("AILERON_BLESS").is_some() {
        fs::write(path, now).unwrap();
    }
    let pinned = fs::read_to_string(path).unwrap_or_default();
    assert!(
        pinned == now,
        "{} is out of date: AILERON_BLESS=1 writes it anew\n{now}",
        path.display()
    );
}
