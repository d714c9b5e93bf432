//! Stories of plain tasks: taken once, queued, stopped, and ended with a result that stays.

use std::time::Duration;

use agent::{BaseModel, GuestOutput, Measurement, News, Outcome, Report};
use bytes::Bytes;
use protocol::{
    Envelope, Filter, Input, Letter as _, Machine as _, ModelLine, ModelUri, ModelVersion, Topic,
    message::{AliveStatus, PropletMetrics, TaskMetrics, TaskStart},
};
use serde_json::{Value, json};

use crate::device::{
    Device, failed, federated, held, me, model, plain, printed, stop, task_id, uri,
};

#[test]
fn it_listens_to_the_manager_and_to_the_verdicts_on_its_own_updates() {
    let device = Device::new(|_| {});
    let filters = device.agent.filters();
    assert!(filters.contains(&Filter::Exactly(Topic::TaskStart)));
    assert!(filters.contains(&Filter::Exactly(Topic::DirectStop { proplet: me() })));
    assert!(filters.contains(&Filter::AcksOf(me())));
    assert!(filters.contains(&Filter::UpdateWantsOf(me())));
    assert_eq!(filters.len(), 6);
}

#[test]
fn at_connect_it_introduces_itself_and_then_gives_signs_of_life() {
    let mut device = Device::new(|config| {
        config.metadata.insert("arch".to_owned(), json!("riscv64"));
    });
    assert_eq!(device.agent.deadline(), None, "before the broker is there, there is nothing to do");
    device.connect();
    let create = device.take_create();
    assert_eq!(create.metadata["directed"], json!(true));
    assert_eq!(create.metadata["arch"], json!("riscv64"));
    assert_eq!(create.tasks, held(&[]));

    device.wait(Duration::from_secs(35));
    let alive = device.take_alive();
    assert_eq!(alive.len(), 3);
    assert!(alive.iter().all(|alive| alive.status == AliveStatus::Alive));
}

#[test]
fn whoever_seems_not_to_know_it_is_told_once_a_connection_who_it_is() {
    let mut device = Device::connected(|config| config.concurrency = 3);
    let shared = |task: &str| TaskStart { directed: false, ..plain(task, 0) };
    device.hear(&shared("t-1"));
    let create = device.take_create();
    assert_eq!(create.metadata["directed"], json!(true));
    assert_eq!(create.tasks, held(&[("t-1", 0)]), "so the start need not be sent again");
    device.hear(&shared("t-2"));
    device.hear(&TaskStart { proplet_id: None, ..shared("t-3") });
    assert!(device.said.iter().all(|it| it.topic != Topic::PropletCreate), "{:?}", device.said);

    device.step(Input::Report(Report::Lost { connection: 1 }));
    device.connect();
    device.take_create();
    device.hear(&TaskStart { proplet_id: None, ..shared("t-4") });
    assert!(device.said.iter().all(|it| it.topic != Topic::PropletCreate), "for everybody");
    device.hear(&shared("t-5"));
    device.take_create();
}

#[test]
fn while_the_broker_is_away_nothing_piles_up_and_a_late_report_of_it_is_no_news() {
    let mut device = Device::connected(|_| {});
    device.step(Input::Report(Report::Lost { connection: 1 }));
    device.wait(Duration::from_secs(3600));
    assert_eq!(device.said, vec![]);
    device.connect();
    device.step(Input::Report(Report::Lost { connection: 1 }));
    device.wait(Duration::from_secs(10));
    assert_eq!(device.take_alive().len(), 1);
}

#[test]
fn a_plain_task_runs_and_its_output_is_its_result() {
    for (printed, result) in [
        ("{\"answer\": 42}\n", json!({"answer": 42})),
        ("0.1", json!(0.1)),
        ("hello, world\n", json!("hello, world\n")),
        ("{\"a\":1} {\"b\":2}", json!("{\"a\":1} {\"b\":2}")),
        ("", json!("")),
    ] {
        let mut device = Device::connected(|_| {});
        device.hear(&plain("t-1", 0));
        assert_eq!(device.take_alive()[0].tasks, held(&[("t-1", 0)]));
        device.print("t-1", 0, printed);
        let results = device.take_result();
        assert_eq!((results.results, results.error, results.code), (result, None, None));
        assert_eq!((results.proplet_id, results.attempt), (me(), Some(0)));
        let metrics = device.take::<TaskMetrics>(&Topic::TaskMetrics);
        assert_eq!((metrics[0].wall_ms, metrics[0].module.as_str()), (2.5, "disk"));
    }
}

#[test]
fn a_failed_run_says_why_and_an_output_too_long_is_no_result() {
    let mut device = Device::connected(|config| config.result_bytes_max = 10);
    device.hear(&plain("t-1", 0));
    device.finish("t-1", 0, failed("trap", "the guest trapped: it divided an integer by zero"));
    let results = device.take_result();
    assert_eq!(results.results, Value::Null);
    assert_eq!(results.code.expect("a code").0, "trap");
    assert!(results.error.expect("an error").contains("divided"));

    device.hear(&plain("t-2", 0));
    device.print("t-2", 0, "12345678901");
    assert!(device.take_result().error.expect("too long").contains("11 bytes"));
}

#[test]
fn a_start_for_another_proplet_is_not_ours_and_one_for_everybody_is() {
    let mut device = Device::connected(|_| {});
    let mut start = plain("t-1", 0);
    start.proplet_id = Some("proplet-2".parse().expect("an id"));
    device.hear(&start);
    assert!(device.runs.is_empty() && device.said.is_empty());
    start.proplet_id = None;
    device.hear(&start);
    assert_eq!(device.runs.len(), 1);
}

#[test]
fn a_repeated_start_is_answered_and_never_run_again() {
    let mut device = Device::connected(|_| {});
    device.hear(&plain("t-1", 1));
    device.hear(&plain("t-2", 0));
    device.said.clear();
    for task in ["t-1", "t-2"] {
        device.hear(&plain(task, u32::from(task == "t-1")));
        assert_eq!(device.take_alive()[0].tasks, held(&[("t-1", 1), ("t-2", 0)]));
    }
    device.print("t-1", 1, "1");
    let first = device.take_result();
    device.hear(&plain("t-1", 1));
    assert_eq!(device.take_result(), first);
    device.hear(&plain("t-1", 0));
    assert_eq!(device.take_results(), vec![], "an older attempt is history");
    assert_eq!(device.runs.keys().cloned().collect::<Vec<_>>(), [(task_id("t-2"), 0)]);
}

#[test]
fn a_newer_attempt_takes_the_place_of_one_that_runs() {
    let mut device = Device::connected(|_| {});
    device.hear(&plain("t-1", 0));
    device.hear(&plain("t-1", 1));
    assert!(device.cancelled.contains(&(task_id("t-1"), 0)));
    assert_eq!(device.runs.len(), 1, "the old run has its slot until it has ended");
    device.finish("t-1", 0, printed("too late"));
    assert_eq!(device.take_results(), vec![]);
    device.print("t-1", 1, "2");
    assert_eq!(device.take_result().results, json!(2));
    device.hear(&plain("t-1", 2));
    device.print("t-1", 2, "3");
    assert_eq!(device.take_result().attempt, Some(2));
}

#[test]
fn tasks_wait_for_their_turn_and_a_full_queue_says_so() {
    let mut device = Device::connected(|config| {
        config.concurrency = 2;
        config.tasks_queued_max = 1;
    });
    for task in ["t-1", "t-2", "t-3", "t-4"] {
        device.hear(&plain(task, 0));
    }
    assert_eq!(device.runs.len(), 2);
    let refused = device.take_result();
    assert_eq!(refused.task_id, task_id("t-4"));
    assert!(refused.error.expect("an error").contains("queue full"));
    device.print("t-2", 0, "1");
    assert!(device.runs.contains_key(&(task_id("t-3"), 0)));
}

#[test]
fn a_queue_of_large_starts_is_full_sooner() {
    let mut device = Device::connected(|config| config.queued_bytes_max = 10_000);
    let mut large = plain("t-1", 0);
    large.file = Some("A".repeat(20_000));
    device.hear(&large);
    assert_eq!(device.runs.len(), 1, "what does not wait is not counted");
    large.id = task_id("t-2");
    device.hear(&large);
    assert!(device.take_result().error.expect("an error").contains("queue full"));
}

#[test]
fn a_stop_ends_what_runs_and_what_waits() {
    let mut device = Device::connected(|_| {});
    device.hear(&plain("t-1", 3));
    device.hear(&plain("t-2", 0));
    for task in ["t-2", "t-1"] {
        device.hear(&stop(task));
        let results = device.take_result();
        assert_eq!(results.task_id, task_id(task));
        assert_eq!(results.code.expect("a code").0, "cancelled");
    }
    assert!(device.cancelled.contains(&(task_id("t-1"), 3)));
    device.finish("t-1", 3, printed("made it after all"));
    assert_eq!(device.take_results(), vec![], "a result does not change");
    device.hear(&stop("t-9"));
    assert_eq!(device.take_results(), vec![]);
    device.hear(&plain("t-3", 0));
    assert_eq!(device.runs.len(), 1, "the slot is free again");
}

#[test]
fn a_stop_meant_for_another_proplet_stops_nothing_here() {
    let mut device = Device::connected(|_| {});
    device.hear(&plain("t-1", 0));
    let mut other = stop("t-1");
    other.proplet_id = Some("proplet-2".parse().expect("an id"));
    other.directed = false;
    device.hear(&other);
    assert!(device.cancelled.is_empty());
    other.broadcast = Some(true);
    device.hear(&other);
    assert_eq!(device.cancelled.len(), 1);
}

#[test]
fn only_the_last_results_are_kept() {
    let mut device = Device::connected(|config| config.results_kept_max = 3);
    for task in 0..5 {
        let task = format!("t-{task}");
        device.hear(&plain(&task, 0));
        device.print(&task, 0, "1");
    }
    assert_eq!(device.kept("results"), 3);
    let mut device = Device::connected(|config| config.results_bytes_max = 3000);
    for task in 0..5 {
        let task = format!("t-{task}");
        device.hear(&plain(&task, 0));
        device.print(&task, 0, &"x".repeat(1200));
    }
    assert_eq!(device.kept("results"), 2);
}

#[test]
fn a_task_with_a_model_gets_it_or_fails_in_time() {
    let mut device = Device::connected(|_| {});
    let topic = Filter::Exactly(Topic::Model { uri: ModelUri::global(ModelVersion(4)) });
    let mut start = plain("t-1", 0);
    start.env.insert("MODEL_URI".to_owned(), uri(4));
    device.hear(&start);
    assert!(device.listening.contains(&topic) && device.runs.is_empty());
    assert_eq!(device.kept("running"), 0);
    device.hear_model(3);
    assert!(device.runs.is_empty());
    device.hear_model(4);
    assert_eq!(device.runs[&(task_id("t-1"), 0)], Some(BaseModel::Here(model(4))));
    assert!(device.listening.is_empty());
    device.print("t-1", 0, "1");

    start.id = task_id("t-2");
    device.hear(&start);
    assert_eq!(device.runs[&(task_id("t-2"), 0)], Some(BaseModel::Here(model(4))), "it was kept");
    device.print("t-2", 0, "1");
    device.said.clear();

    device.hear(&federated("t-3", 0, "r-1", 5));
    device.wait(Duration::from_secs(29));
    assert_eq!(device.take_results(), vec![]);
    device.wait(Duration::from_secs(1));
    let error = device.take_result().error.expect("an error");
    assert!(error.contains(&format!("{} did not arrive", uri(5))), "{error}");
    assert!(device.listening.is_empty());
}

#[test]
fn time_without_a_broker_does_not_count_as_waiting() {
    let mut device = Device::connected(|_| {});
    device.hear(&federated("t-1", 0, "r-1", 5));
    device.step(Input::Report(Report::Lost { connection: 1 }));
    device.wait(Duration::from_secs(300));
    device.connect();
    device.wait(Duration::from_secs(20));
    device.hear_model(5);
    assert_eq!(device.runs.len(), 1);
}

#[test]
fn an_environment_that_cannot_be_meant_is_refused_with_its_value() {
    let (leading_zero, latest) = (
        uri(1).replace("v1", "v01"),
        Topic::ModelLatest { line: ModelLine::default() }.to_string(),
    );
    for (name, value, expected) in [
        ("ROUND_ID", "r/1", "'/' is not allowed in an id"),
        ("ROUND_ID", "", "must not be empty"),
        ("MODEL_URI", "../x", "\"../x\" is not a model address"),
        ("MODEL_URI", &leading_zero, "is not a model address"),
        ("MODEL_URI", &latest, "is not a model address"),
    ] {
        let mut device = Device::connected(|_| {});
        let mut start = federated("t-1", 0, "r-1", 0);
        start.env.insert(name.to_owned(), value.to_owned());
        device.hear(&start);
        let results = device.take_result();
        assert!(results.error.as_ref().expect("an error").contains(expected), "{results:?}");
        assert!(results.error.expect("an error").contains(name));
    }
    let mut device = Device::connected(|_| {});
    let mut start = federated("t-1", 0, "r-1", 0);
    start.env.remove("MODEL_URI");
    device.hear(&start);
    assert!(device.take_result().error.expect("an error").contains("MODEL_URI is missing"));
}

#[test]
fn a_binary_result_is_text_with_marks_and_a_file_beside_it_is_ignored() {
    let mut device = Device::connected(|_| {});
    device.hear(&plain("t-1", 0));
    let stdout = Bytes::from_static(b"\xff\x00ok");
    let output = GuestOutput { stdout, update_file: Some(Bytes::from_static(b"x")), state: None };
    device.finish("t-1", 0, Outcome::Ok(output));
    assert_eq!(device.take_result().results, json!("\u{fffd}\0ok"));
}

#[test]
fn it_says_what_it_takes_once_it_is_connected_and_while_something_runs() {
    let mut device =
        Device::connected(|config| config.metrics_every = Some(Duration::from_secs(30)));
    device.wait(Duration::from_secs(3600));
    assert_eq!(device.measures, 1, "nothing has changed");
    device.hear(&plain("t-1", 1));
    device.wait(Duration::from_secs(61));
    assert_eq!(device.measures, 3);
    device.print("t-1", 1, "1");
    device.wait(Duration::from_secs(3600));
    assert_eq!(device.measures, 4, "once more after it has ended");
    device.measured(Measurement { cpu_percent: 1.5, memory_bytes: 1 << 20, uptime_s: 61 });
    let metrics = device.take::<PropletMetrics>(&Topic::PropletMetrics);
    assert_eq!((metrics[0].memory_bytes, metrics[0].uptime_s), (1 << 20, 61));
}

#[test]
fn what_is_not_for_a_proplet_or_not_readable_is_refused() {
    let ack = Topic::RoundAck { round: "r-1".parse().expect("an id"), proplet: me() };
    for (topic, payload) in [
        (Topic::TaskStart, "{"),
        (Topic::TaskStart, "{\"id\":\"../../etc\"}"),
        (Topic::DirectStop { proplet: me() }, "[]"),
        (ack.clone(), "{\"round_id\":\"r-2\",\"verdict\":\"accepted\"}"),
        (ack, "{\"round_id\":\"r-1\",\"verdict\":\"perhaps\"}"),
        (Topic::ModelLatest { line: ModelLine::default() }, "{}"),
        (Topic::Model { uri: ModelUri::global(ModelVersion(1)) }, ""),
        (plain("t-1", 0).topic(), "\u{0}"),
    ] {
        let envelope = Envelope { topic, payload: Bytes::from_static(payload.as_bytes()) };
        let shown = format!("{envelope:?}");
        assert!(News::try_from(envelope).is_err(), "{shown}");
    }
}
