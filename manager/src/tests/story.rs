//! The ways through the API that people go.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::{Digest, Filter, Topic, message::TaskMetrics};
use serde_json::{Value, json};

use super::{
    http::{call, call_with, form},
    world::{Peer, World},
};

const MODULE: &[u8] = b"\0asm\x01\0\0\0";

#[tokio::test]
async fn a_task_from_its_making_to_its_results() {
    let world = World::new().await;
    let mut proplet = world.proplet("p1").await;
    let wording = json!({
        "name": "hello", "file": STANDARD.encode(MODULE), "cli_args": ["-v"], "inputs": [1, "x"],
        "env": {"A": "b"}, "state": 0, "unknown": true,
    });

    let made = world.post("/tasks", wording).await;

    assert_eq!(made.status, 201);
    let task = made.json();
    let id = task["id"].as_str().unwrap();
    assert_eq!(made.header("location"), Some(format!("/tasks/{id}").as_str()));
    assert_eq!(task["state"], "Pending");
    assert_eq!(task["daemon"], false);
    assert_eq!((&task["file"], &task["file_bytes"]), (&Value::Null, &json!(8)));
    assert_eq!(task["file_sha256"], Digest::of(MODULE).to_string());
    assert!(task["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(world.get(&format!("/tasks/{id}")).await.json(), task);
    assert_eq!(world.get(&format!("/tasks/{id}/results")).await.json(), json!({"results": null}));

    let started = world.post(&format!("/tasks/{id}/start"), Value::Null).await;
    assert_eq!((started.status, started.json()), (200, json!({"started": true})));
    let start = proplet.hear_start().await;
    assert_eq!(start.id.as_str(), id);
    assert_eq!(start.file.unwrap(), STANDARD.encode(MODULE));
    assert_eq!(start.cli_args, ["-v"]);
    assert_eq!(start.inputs, [json!(1), json!("x")]);
    assert_eq!(start.env["A"], "b");

    proplet.say(&TaskMetrics {
        task_id: start.id.clone(),
        proplet_id: "p1".parse().unwrap(),
        attempt: 1,
        wall_ms: 12.5,
        cpu_ms: 10.0,
        memory_bytes: 1 << 16,
        fuel: Some(7),
        module: "compiled".into(),
        compile_ms: 90.0,
        start_us: 11.0,
    });
    world.until_state(id, "Running").await;
    proplet.report("p1", id, json!({"answer": 42.5}));
    let task = world.until_state(id, "Completed").await;

    assert_eq!(task["results"], json!({"answer": 42.5}));
    assert!(task["finish_time"].is_string() && task["start_time"].is_string());
    let results = world.get(&format!("/tasks/{id}/results")).await.json();
    assert_eq!(results, json!({"results": {"answer": 42.5}}));
    let metrics = world.get(&format!("/tasks/{id}/metrics?limit=5")).await.json();
    assert_eq!((&metrics["total"], &metrics["limit"]), (&json!(1), &json!(5)));
    assert_eq!(metrics["metrics"][0]["fuel"], 7);
    let listed = world.get("/tasks?state=3&proplet_id=p1&name=hello").await.json();
    assert_eq!((&listed["total"], &listed["tasks"][0]["id"]), (&json!(1), &json!(id)));
    let gone = call(world.at, "DELETE", &format!("/tasks/{id}"), b"").await;
    assert_eq!((gone.status, gone.body.len()), (204, 0));
    assert_eq!(world.get(&format!("/tasks/{id}")).await.status, 404);
    world.stop().await;
}

#[tokio::test]
async fn a_module_is_uploaded_and_a_wording_changed() {
    let world = World::new().await;
    let id = world.task(json!({"name": "t", "image_url": "file:///m.wasm"})).await;
    let (header, body) = form("file", MODULE);

    let path = format!("/tasks/{id}/upload");
    let said = call_with(world.at, "PUT", &path, header, &body).await;
    assert_eq!((said.status, &said.json()["file_bytes"]), (200, &json!(8)), "{said:?}");

    let change = json!({"image_url": null, "retries": 0, "state": "Pending"}).to_string();
    let said = call(world.at, "PUT", &format!("/tasks/{id}"), change.as_bytes()).await;
    let task = said.json();
    assert_eq!(said.status, 200);
    assert_eq!((&task["image_url"], &task["retries"]), (&Value::Null, &json!(0)));
    assert_eq!(task["file_bytes"], 8);
    // What was shown can be sent back as it is.
    let same = call(world.at, "PUT", &format!("/tasks/{id}"), task.to_string().as_bytes()).await;
    assert_eq!(same.status, 200, "{same:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_round_goes_to_its_participants_and_their_updates_to_the_coordinator() {
    let world = World::new().await;
    let mut one = world.proplet("p1").await;
    let absent = Topic::RoundAbsent { round: "r1".parse().unwrap() };
    let mut coordinator = Peer::new(&world.broker, "c", &[Topic::ForwardedUpdate, absent]).await;

    let uri = protocol::ModelUri::global(protocol::ModelVersion(0));
    let start = json!({
        "round_id": "r1", "model_uri": uri, "participants": ["p1", "p2"], "hyperparams": {"a": 1},
    });
    let mut operator = Peer::new(&world.broker, "op", &[]).await;
    operator.say_raw(Topic::RoundStart, &start.to_string());

    let heard: Value = coordinator.hear().await.open().unwrap();
    assert_eq!(heard, json!({"round_id": "r1", "proplet_id": "p2", "reason": "unknown"}));
    let start = one.hear_start().await;
    assert_eq!(start.name, "fl-round-r1-p1");
    assert_eq!(start.env["HYPERPARAMS"], r#"{"a":1}"#);
    let topic = Topic::RoundUpdate { round: "r1".parse().unwrap(), proplet: "p1".parse().unwrap() };
    assert!(Filter::AnyUpdate.matches(&topic));
    let update = r#"{"round_id":"r1","proplet_id":"p1","update":{"w":[1.50]}}"#;
    one.say_raw(topic, update);
    let forwarded = coordinator.hear().await;
    let text = String::from_utf8(forwarded.payload.to_vec()).unwrap();
    let (own, added) = text.split_at(update.len() - 1);
    assert_eq!(own, &update[..update.len() - 1]);
    assert!(added.starts_with(",\"forwarded_at\":\"20"), "{added}");

    one.report("p1", start.id.as_str(), json!({"update": "published"}));
    world.until_state(start.id.as_str(), "Completed").await;
    let metrics = String::from_utf8(world.get("/metrics").await.body).unwrap();
    for line in [
        "aileron_tasks{state=\"Completed\"} 1.0",
        "aileron_proplets_alive 1",
        "aileron_updates_forwarded_total 1",
        "aileron_messages_received_total{kind=\"round_start\"} 1",
        "aileron_messages_sent_total{kind=\"absent\"} 1",
        "# TYPE aileron_tasks gauge",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} is not in\n{metrics}");
    }
    world.stop().await;
}

#[tokio::test]
async fn everything_is_there_again_after_a_restart() {
    let world = World::new().await;
    let mut proplet = world.proplet("p1").await;
    let id = world.task(json!({"name": "t", "proplet_id": "p1"})).await;
    world.post(&format!("/tasks/{id}/start"), Value::Null).await;
    proplet.hear_start().await;
    let waiting = world.task(json!({"name": "later"})).await;

    let world = world.restart().await;

    assert_eq!(world.get("/proplets/p1").await.json()["alive"], true);
    assert_eq!(world.get(&format!("/tasks/{id}")).await.json()["state"], "Scheduled");
    assert_eq!(world.get(&format!("/tasks/{waiting}")).await.json()["state"], "Pending");
    proplet.report("p1", &id, json!("done"));
    world.until_state(&id, "Completed").await;
    world.stop().await;
}

#[tokio::test]
async fn a_running_task_is_stopped_and_proplets_are_listed() {
    let world = World::new().await;
    let mut proplet = world.proplet("p1").await;
    let id = world.task(json!({"name": "t", "daemon": true})).await;
    world.post(&format!("/tasks/{id}/start"), Value::Null).await;
    assert!(proplet.hear_start().await.daemon);
    let page = world.get("/proplets").await.json();
    assert_eq!(
        (&page["offset"], &page["limit"], &page["total"]),
        (&json!(0), &json!(100), &json!(1))
    );
    let shown = &page["proplets"][0];
    assert_eq!((&shown["id"], &shown["name"]), (&json!("p1"), &json!("p1")));
    assert_eq!((&shown["task_count"], &shown["alive"]), (&json!(1), &json!(true)));
    assert_eq!(shown["metadata"], json!({"os": "linux"}));

    let said = world.post(&format!("/tasks/{id}/stop"), Value::Null).await;

    assert_eq!((said.status, said.json()), (200, json!({"stopped": true})));
    let stop: Value = proplet.hear().await.open().unwrap();
    assert_eq!(stop, json!({"id": id, "proplet_id": "p1"}));
    world.until_state(&id, "Interrupted").await;
    let said = call(world.at, "DELETE", "/proplets/p1", b"").await;
    assert_eq!((said.status, said.error()), (409, "proplet p1 is alive".to_owned()));
    world.stop().await;
}
