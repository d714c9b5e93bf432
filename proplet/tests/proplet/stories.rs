//! Stories of tasks on a real proplet, from start to verdict.

use protocol::{
    Topic, TraceField,
    message::{AliveStatus, HeldTask, TaskMetrics, TaskResults, TaskStart, Update, read_update},
};
use serde_json::{Value, json};

use crate::platform::{
    Platform, federated, guest, me, round_id, stop, task, task_id, update_topic,
};

#[tokio::test]
async fn a_guest_trains_and_its_update_is_said_until_it_is_judged() {
    let mut platform = Platform::new();
    let (proplet, create) = platform.start(&[]).await;
    assert_eq!(create.metadata["directed"], json!(true));
    assert_eq!(create.metadata["limits"]["memory_bytes"], json!(268_435_456));

    platform.say(&federated("t-1", Some(guest("note-contract")), "r-7")).await;
    platform.publish_model(0).await;
    let results = platform.result_of("t-1").await;
    assert_eq!(results.error, None);
    assert_eq!(results.results["update"], json!("published"));
    let metrics: TaskMetrics = platform.hear(&Topic::TaskMetrics).await;
    assert_eq!(metrics.module, "compiled");
    assert!(metrics.memory_bytes > 0 && metrics.compile_ms > 0.0, "{metrics:?}");

    let said: Value = platform.hear(&update_topic("r-7")).await;
    let update: Update = read_update(said.to_string().as_bytes(), Some(&me())).expect("an update");
    assert_eq!((update.round_id, update.num_samples), (round_id("r-7"), 512));
    let again: Value = platform.hear(&update_topic("r-7")).await;
    assert_eq!(again, said, "nobody has judged it");

    platform.accept("r-7").await;
    platform.say(&task("t-2", Some(guest("silent")))).await;
    platform.result_of("t-2").await;
    proplet.stop().await;
    let (proplet, _) = platform.start(&[]).await;
    platform.say(&task("t-3", Some(guest("silent")))).await;
    platform.result_of("t-3").await;
    assert!(!platform.overheard(&update_topic("r-7")), "its verdict was heard and kept");
    proplet.stop().await;
}

/// Whoever keeps spans elsewhere is helped; nobody is told of a trace that is not kept.
#[tokio::test]
async fn an_update_says_the_trace_that_its_start_has_said() {
    let mut platform = Platform::new();
    let (proplet, _) = platform.start(&[]).await;
    platform.publish_model(0).await;
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let unsampled = given.replace("-01", "-00");
    for (round, said, passed_on) in [
        ("r-1", Some(given), Some(given)),
        ("r-2", Some(unsampled.as_str()), None),
        ("r-3", Some("bad"), None),
        ("r-4", None, None),
    ] {
        let mut start = federated(round, Some(guest("note-contract")), round);
        start.traceparent = said.map(TraceField::read);
        platform.say(&start).await;
        let update: Value = platform.hear(&update_topic(round)).await;
        assert_eq!(update.get("traceparent").and_then(Value::as_str), passed_on, "{round}");
        platform.accept(round).await;
    }
    proplet.stop().await;
}

#[tokio::test]
async fn an_update_that_was_not_judged_outlives_a_kill() {
    let mut platform = Platform::new();
    let (proplet, _) = platform.start(&[]).await;
    platform.publish_model(0).await;
    platform.say(&federated("t-1", Some(guest("note-contract")), "r-1")).await;
    let said: Value = platform.hear(&update_topic("r-1")).await;
    let result = platform.result_of("t-1").await;
    proplet.kill().await;
    assert_eq!(platform.last_status().await, AliveStatus::Offline);

    let (proplet, _) = platform.start(&[]).await;
    assert_eq!(platform.hear::<Value>(&update_topic("r-1")).await, said);
    platform.say(&federated("t-1", None, "r-1")).await;
    assert_eq!(platform.result_of("t-1").await, result, "the kept one, nothing runs again");
    proplet.stop().await;
}

#[tokio::test]
async fn however_a_guest_fails_the_reason_is_said_and_the_next_task_runs() {
    let mut platform = Platform::new();
    let flags = ["--wall-s-max=1", "--memory-bytes-max=16777216", "--output-bytes-max=100000"];
    let (proplet, _) = platform.start(&flags).await;
    platform.publish_model(0).await;
    for (name, code) in [
        ("trap", "trap"),
        ("exit-3", "exit_code"),
        ("loop-forever", "timeout"),
        ("sleep-forever", "timeout"),
        ("flood-stdout", "output_too_large"),
        ("grow-memory", "memory_limit"),
        ("garbage", "not_an_update"),
        ("silent", "not_an_update"),
        ("nan-update", "not_an_update"),
        ("zero-samples", "not_an_update"),
        ("no-entry", "missing_export"),
    ] {
        platform.say(&federated(name, Some(guest(name)), "r-1")).await;
        let results = platform.result_of(name).await;
        let error = results.error.expect("an error");
        assert_eq!(results.code.expect("a code").0, code, "{name}: {error}");
        assert_eq!(results.results, Value::Null);
        let metrics: TaskMetrics = platform.hear(&Topic::TaskMetrics).await;
        assert_eq!(metrics.task_id, task_id(name));
        if cfg!(target_os = "linux") && name == "loop-forever" {
            assert!(metrics.wall_ms >= 1000.0 && metrics.cpu_ms > 0.0, "{metrics:?}");
        }
    }
    platform.say(&federated("t-1", Some(guest("valid-update")), "r-1")).await;
    assert_eq!(platform.result_of("t-1").await.error, None);
    let said: Value = platform.hear(&update_topic("r-1")).await;
    assert_eq!(said["proplet_id"], json!("proplet-1"));
    proplet.stop().await;
}

#[tokio::test]
async fn a_plain_guest_sees_its_own_environment_and_its_text_is_the_result() {
    let mut platform = Platform::new();
    let (proplet, _) = platform.start(&[]).await;
    let mut start: TaskStart = task("t-1", Some(guest("echo-env")));
    start.env.insert("COLOUR".to_owned(), "blue".to_owned());
    start.inputs = vec![json!(1), json!("two")];
    platform.say(&start).await;
    let results: TaskResults = platform.result_of("t-1").await;
    let text = results.results.as_str().expect("text").to_owned();
    assert!(text.contains("COLOUR=blue\n") && text.contains("PROPLET_ID=proplet-1\n"), "{text}");
    assert!(text.contains("INPUTS=[1,\"two\"]\n"), "{text}");
    assert!(!text.contains("HOME="), "{text}");
    proplet.stop().await;
}

#[tokio::test]
async fn a_daemon_has_no_time_limit_and_ends_when_it_is_stopped() {
    let mut platform = Platform::new();
    let (proplet, _) = platform.start(&["--wall-s-max=1", "--concurrency=2"]).await;
    let mut daemon = task("daemon", Some(guest("sleep-forever")));
    daemon.daemon = true;
    platform.say(&daemon).await;
    // Started later, and over its time limit sooner.
    platform.say(&task("t-1", Some(guest("loop-forever")))).await;
    assert_eq!(platform.result_of("t-1").await.code.expect("a code").0, "timeout");
    platform.say(&daemon).await;
    let held = HeldTask { id: task_id("daemon"), attempt: 0 };
    while platform.alive().await.tasks != Some(vec![held.clone()]) {}

    platform.say(&stop("daemon")).await;
    assert_eq!(platform.result_of("daemon").await.code.expect("a code").0, "cancelled");
    platform.say(&task("t-2", Some(guest("silent")))).await;
    assert_eq!(platform.result_of("t-2").await.error, None);
    proplet.stop().await;
}

#[tokio::test]
async fn a_stopped_proplet_interrupts_its_guest_and_says_offline() {
    let mut platform = Platform::new();
    let (proplet, _) = platform.start(&[]).await;
    platform.say(&task("t-1", Some(guest("loop-forever")))).await;
    platform.alive().await;
    proplet.stop().await;
    assert_eq!(platform.result_of("t-1").await.code.expect("a code").0, "interrupted");
    assert_eq!(platform.last_status().await, AliveStatus::Offline);

    let (proplet, create) = platform.start(&[]).await;
    assert_eq!(create.tasks, Some(vec![]));
    platform.say(&task("t-1", Some(guest("loop-forever")))).await;
    assert_eq!(platform.result_of("t-1").await.code.expect("a code").0, "interrupted");
    proplet.stop().await;
}

#[tokio::test]
async fn a_killed_proplet_comes_back_and_says_what_was_interrupted() {
    let mut platform = Platform::new();
    let (proplet, _) = platform.start(&[]).await;
    platform.say(&task("t-1", Some(guest("sleep-forever")))).await;
    platform.alive().await;
    proplet.kill().await;
    let (proplet, _) = platform.start(&[]).await;
    let results = platform.result_of("t-1").await;
    assert_eq!(results.code.expect("a code").0, "interrupted");
    let mut again = task("t-1", Some(guest("silent")));
    again.attempt = 1;
    platform.say(&again).await;
    assert_eq!(platform.result_of("t-1").await.attempt, Some(1));
    proplet.stop().await;
}
