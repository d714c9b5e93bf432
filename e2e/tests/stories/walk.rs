//! The design note's own walk against Mosquitto, with the tools that its reader has at hand.

use std::{fs, path::Path};

use e2e::{Answer, BrokerKind, Command, Process, Stack, StackPlan, Turn, eventually};
use serde_json::{Value, json};

use crate::{guest, guest_bytes};

const ROUND: &str = "r-1768464194";

#[test]
fn the_notes_message_starts_a_round_and_every_message_has_its_form() {
    let _turn = Turn::take();
    let stack = StackPlan::new(BrokerKind::Mosquitto, 3).start();
    drop(stack.operator());
    let watch = Watch::start(&stack, &[]);
    let watch_5 = Watch::start(&stack, &["-V", "5"]);
    let start = json!({
        "round_id": ROUND, "model_uri": "fl/models/global_model_v0", "file": guest("note-contract"),
        "participants": ["proplet-1", "proplet-2", "proplet-3"],
        "hyperparams": {"epochs": 1, "lr": 0.01, "batch_size": 16}, "k_of_n": 3, "timeout_s": 30,
    });
    publish(&stack, "fl/rounds/start", &start.to_string());
    for watch in [&watch, &watch_5] {
        watch.wait_for(&format!("fl/rounds/{ROUND}/complete"));
    }
    every_message_is_in_form(&watch, &start);
    every_message_is_in_form(&watch_5, &start);
    models_are_kept(&stack, &watch);
}

#[test]
fn the_http_way_completes_a_round_of_tasks_alone() {
    let _turn = Turn::take();
    let stack =
        StackPlan::new(BrokerKind::Mosquitto, 3).with("COORDINATOR_LAZY_ROUNDS", true).start();
    let operator = stack.operator();
    let http = stack.http;
    let health = http.get("/health");
    assert_eq!((health.status, &health.body["status"]), (200, &json!("pass")), "{health:?}");
    let tasks: Vec<String> =
        (1..=3).map(|n| http.run_task(&fl_task(n, Some(guest("note-contract"))))).collect();
    let complete = operator.wait_for_complete("r-http");
    assert_eq!(
        (complete.model_version.0, complete.num_updates, complete.total_samples),
        (1, 3, 1536)
    );
    for id in &tasks {
        let task = http.wait_for_end(id);
        assert_eq!(task["state"], "Completed", "{task}");
        assert!(
            task["file"].as_str().is_none_or(|file| file.len() < 200),
            "echoes its file: {task}"
        );
        let results = http.get(&format!("/tasks/{id}/results"));
        assert_eq!(results.status, 200, "{results:?}");
        assert!(!results.body["results"].is_null(), "{results:?}");
    }
    let list = http.get("/tasks?state=Completed&limit=2").body;
    assert_eq!(
        (&list["offset"], &list["limit"], &list["total"]),
        (&json!(0), &json!(2), &json!(3)),
        "{list}"
    );
    assert_eq!(list["tasks"].as_array().map(Vec::len), Some(2), "{list}");
    asked_wrongly(&stack);
}

#[test]
fn a_module_is_uploaded_and_its_task_runs_twice() {
    let _turn = Turn::take();
    let stack = StackPlan::new(BrokerKind::Embedded, 1).start();
    drop(stack.operator());
    let module = stack.dir().join("module.wasm");
    fs::write(&module, guest_bytes("valid-update")).unwrap();
    let created = stack.http.post("/tasks", &json!({"name": "uploaded"}));
    assert_eq!(created.status, 201, "{created:?}");
    let id = created.body["id"].as_str().unwrap();
    let uploaded = stack.http.upload(id, &module);
    assert_eq!(uploaded.status, 200, "{uploaded:?}");
    for _ in 0..2 {
        let started = stack.http.ask("POST", &format!("/tasks/{id}/start"), None);
        assert_eq!(started.status, 200, "{started:?}");
        let task = stack.http.wait_for_end(id);
        assert_eq!(task["state"], "Completed", "{task}");
        assert!(task["results"].to_string().contains("global_model_v0"), "{task}");
    }
    fs::write(&module, b"not a module").unwrap();
    let refused = stack.http.upload(id, &module);
    assert_eq!(refused.status, 400, "{refused:?}");
}

#[test]
fn a_guest_that_exports_run_as_the_note_has_it_works() {
    let _turn = Turn::take();
    let stack = StackPlan::new(BrokerKind::Embedded, 1).start();
    drop(stack.operator());
    let task = json!({"name": "run", "file": guest("run-only")});
    let ended = stack.http.wait_for_end(&stack.http.run_task(&task));
    assert_eq!(ended["state"], "Completed", "{ended}");
}

fn fl_task(number: u32, file: Option<String>) -> Value {
    json!({
        "name": format!("fl-round-r-http-proplet-{number}"), "file": file,
        "proplet_id": format!("proplet-{number}"),
        "env": {"ROUND_ID": "r-http", "MODEL_URI": "fl/models/global_model_v0",
                "HYPERPARAMS": "{\"epochs\":1}"},
    })
}

fn asked_wrongly(stack: &Stack) {
    let says = |answer: &Answer, status: u16, word: &str| {
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.body["error"].as_str().is_some_and(|e| e.contains(word)), "{answer:?}");
    };
    let http = stack.http;
    says(&http.post("/tasks", &json!({})), 400, "name");
    says(&http.post("/tasks", &json!({"name": "x", "file": "%%%"})), 400, "file");
    says(&http.get("/tasks?limit=5000"), 400, "5000");
    says(&http.get("/tasks?state=Asleep"), 400, "Asleep");
    let missing = http.get("/tasks/11111111-2222-3333-4444-555555555555");
    says(&missing, 404, "11111111-2222-3333-4444-555555555555");
    assert_eq!(http.get("/no-such-thing").status, 404);
    let openapi = http.get("/openapi.json");
    assert!(openapi.body["paths"]["/tasks"].is_object(), "{openapi:?}");
    assert_eq!(http.get("/metrics").status, 200);
}

/// `mosquitto_sub -v`, and what it has printed.
struct Watch(Process);

impl Watch {
    fn start(stack: &Stack, more: &[&str]) -> Self {
        let port = stack.field().port().to_string();
        let mut args = vec!["-h", "127.0.0.1", "-p", &port, "-q", "1", "-v"];
        args.extend(["-t", "fl/#", "-t", "fml/#", "-t", "m/#"]);
        args.extend(more);
        let mut command = Command::outside(&stack.dir(), "mosquitto_sub", &args);
        command.name = format!("mosquitto_sub{}", more.concat());
        let watch = Self(command.start());
        // A retained message says that the subscription stands.
        watch.wait_for("fl/models/latest");
        watch
    }

    fn wait_for(&self, topic: &str) {
        eventually(&format!("mosquitto_sub prints {topic}"), || self.payloads(topic).pop());
    }

    fn payloads(&self, topic: &str) -> Vec<String> {
        let log = self.0.log();
        let complete = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let payload = |line: &str| line.strip_prefix(topic)?.strip_prefix(' ').map(str::to_owned);
        complete.lines().filter_map(payload).collect()
    }

    fn json(&self, topic: &str) -> Value {
        let payloads = self.payloads(topic);
        let first = payloads.first().unwrap_or_else(|| panic!("nothing was said on {topic}"));
        serde_json::from_str(first).unwrap_or_else(|why| panic!("{topic}: {why}: {first}"))
    }
}

pub(crate) fn publish(stack: &Stack, topic: &str, payload: &str) {
    let file = stack.dir().join("message.json");
    fs::write(&file, payload).unwrap();
    let (port, file) = (stack.field().port().to_string(), file.display().to_string());
    let args = ["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic, "-f", &file];
    let status = Command::outside(&stack.dir(), "mosquitto_pub", &args).start().wait();
    assert!(status.success(), "mosquitto_pub: {status}");
}

fn every_message_is_in_form(watch: &Watch, start: &Value) {
    assert_eq!(&watch.json("fl/rounds/start"), start);
    let opened = watch.json(&format!("fl/rounds/{ROUND}/opened"));
    assert_eq!(opened["round_id"], ROUND, "{opened}");
    let forwarded = watch.payloads("fml/updates");
    for number in 1..=3 {
        let id = format!("proplet-{number}");
        update_is_in_form(watch, &id, &forwarded);
        let ack = watch.json(&format!("fl/rounds/{ROUND}/acks/{id}"));
        assert_eq!(ack, json!({"round_id": ROUND, "verdict": "accepted"}));
    }
    task_is_in_form(watch);
    let model = watch.json("fl/models/publish");
    assert_eq!(model["version"], 1, "{model}");
    assert_eq!(model, watch.json("fl/models/global_model_v1"));
    let close = |value: &Value, wanted: f64| (value.as_f64().unwrap() - wanted).abs() < 1e-12;
    let w = &model["w"];
    assert!(close(&w[0], 0.12) && close(&w[1], -0.05) && close(&w[2], 1.01), "{model}");
    assert!(close(&model["b"], 0.33), "{model}");
    let complete = watch.json(&format!("fl/rounds/{ROUND}/complete"));
    let wanted = json!({"round_id": ROUND, "model_version": 1, "num_updates": 3,
                        "model_topic": "fl/models/global_model_v1", "total_samples": 1536});
    for (key, value) in wanted.as_object().unwrap() {
        assert_eq!(&complete[key], value, "{complete}");
    }
    is_time(&complete["completed_at"]);
}

fn update_is_in_form(watch: &Watch, id: &str, forwarded: &[String]) {
    let topic = format!("fl/rounds/{ROUND}/updates/{id}");
    let update = watch.json(&topic);
    let wanted = json!({
        "round_id": ROUND, "proplet_id": id, "base_model_uri": "fl/models/global_model_v0",
        "num_samples": 512, "metrics": {"loss": 0.73}, "update": {"w": [0.12, -0.05, 1.01], "b": 0.33},
    });
    assert_eq!(update, wanted);
    let text = watch.payloads(&topic).remove(0);
    let body = text.trim_end().strip_suffix('}').unwrap();
    let tail = forwarded.iter().find_map(|message| message.strip_prefix(body));
    let tail = tail.unwrap_or_else(|| panic!("{text} was not forwarded verbatim: {forwarded:?}"));
    let time = tail.strip_prefix(",\"forwarded_at\":\"").and_then(|rest| rest.strip_suffix("\"}"));
    is_time(&json!(time.unwrap_or_else(|| panic!("forwarded_at is not last: {tail}"))));
}

/// What goes between manager and proplets, on the shared topic or on their own.
fn task_is_in_form(watch: &Watch) {
    let base = "m/demo/c/fl/control";
    let mut starts = watch.payloads(&format!("{base}/manager/start"));
    starts
        .extend((1..=3).flat_map(|n| watch.payloads(&format!("{base}/manager/proplet-{n}/start"))));
    assert!(starts.len() >= 3, "{} tasks were started", starts.len());
    for start in &starts {
        let start: Value = serde_json::from_str(start).unwrap();
        let id = start["proplet_id"].as_str().unwrap();
        assert_eq!(start["name"], format!("fl-round-{ROUND}-{id}"));
        let env = json!({
            "ROUND_ID": ROUND, "MODEL_URI": "fl/models/global_model_v0", "PROPLET_ID": id,
            "HYPERPARAMS": start["env"]["HYPERPARAMS"],
        });
        assert_eq!(start["env"], env);
        let hyperparams: Value =
            serde_json::from_str(start["env"]["HYPERPARAMS"].as_str().unwrap()).unwrap();
        assert_eq!(hyperparams, json!({"epochs": 1, "lr": 0.01, "batch_size": 16}));
        for key in ["id", "image_url", "file", "inputs", "cli_args", "daemon", "state"] {
            assert!(start.get(key).is_some(), "a start without {key}");
        }
    }
    let results: Vec<Value> = watch
        .payloads(&format!("{base}/proplet/results"))
        .iter()
        .map(|text| serde_json::from_str(text).unwrap())
        .collect();
    for result in results {
        assert_eq!(result["error"], Value::Null, "{result}");
        assert!(result["task_id"].is_string() && result["proplet_id"].is_string(), "{result}");
    }
}

fn models_are_kept(stack: &Stack, watch: &Watch) {
    let port = stack.field().port().to_string();
    let args = [
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-q",
        "1",
        "-v",
        "-t",
        "fl/models/#",
        "--retained-only",
        "-C",
        "3",
    ];
    let mut command = Command::outside(&stack.dir(), "mosquitto_sub", &args);
    command.name = "mosquitto_sub-retained".to_owned();
    let mut late = Watch(command.start());
    assert!(late.0.wait().success());
    let latest = late.json("fl/models/latest");
    assert_eq!(
        (&latest["version"], &latest["topic"]),
        (&json!(1), &json!("fl/models/global_model_v1"))
    );
    for version in 0..2 {
        let topic = format!("fl/models/global_model_v{version}");
        let kept = late.payloads(&topic).pop().unwrap_or_else(|| panic!("{topic} is not retained"));
        assert_eq!(Some(&kept), watch.payloads(&topic).first());
        let file = Path::new("model-server-state").join(format!("global_model_v{version}.json"));
        let file = fs::read_to_string(stack.dir().join(file)).unwrap();
        assert_eq!(file, kept, "the file of version {version}");
    }
    let model_0: Value =
        serde_json::from_str(&late.payloads("fl/models/global_model_v0")[0]).unwrap();
    assert_eq!(model_0, json!({"w": [0.0, 0.0, 0.0], "b": 0.0, "version": 0}));
    assert_eq!(latest["bytes"], late.payloads("fl/models/global_model_v1")[0].len());
}

/// RFC 3339, UTC.
fn is_time(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is not a time"));
    assert!(protocol::Timestamp::try_from(text.to_owned()).is_ok(), "{text} is not a time");
    assert!(text.ends_with('Z'), "{text} is not UTC");
}
