//! Stories of ends and new beginnings: a crash, and a shutdown in good order.

use std::time::Duration;

use agent::Report;
use protocol::{
    Input, Machine as _,
    message::{AliveStatus, FailureCode},
};

use crate::device::{Device, failed, federated, held, plain, printed, task_id, update};

#[test]
fn what_ran_when_the_power_went_is_reported_as_interrupted() {
    let mut device = Device::connected(|_| {});
    device.hear(&plain("t-1", 2));
    device.hear(&plain("t-2", 0));
    device.crash();
    device.connect();
    assert_eq!(device.take_create().tasks, held(&[]), "the manager sends again what only waited");
    let results = device.take_result();
    assert_eq!((results.task_id, results.attempt), (task_id("t-1"), Some(2)));
    assert_eq!(results.code.expect("a code").0, FailureCode::INTERRUPTED);

    device.hear(&plain("t-1", 2));
    assert!(device.runs.is_empty(), "that run is over");
    device.hear(&plain("t-1", 3));
    assert_eq!(device.runs.len(), 1);
    device.crash();
    device.connect();
    assert_eq!(device.take_result().attempt, Some(3));
}

#[test]
fn a_crash_before_it_could_be_said_does_not_lose_that_something_was_interrupted() {
    let mut device = Device::connected(|_| {});
    device.hear(&plain("t-1", 0));
    for _ in 0..3 {
        device.crash();
    }
    device.connect();
    assert_eq!(device.take_results().len(), 1);
    device.crash();
    device.connect();
    assert_eq!(device.take_results().len(), 0, "promised once");
}

#[test]
fn results_and_updates_outlive_a_crash() {
    let mut device = Device::connected(|_| {});
    device.hear(&federated("t-1", 0, "r-1", 0));
    device.hear_model(0);
    device.print("t-1", 0, &update("r-1", 0));
    let result = device.take_result();
    let said = device.take_updates("r-1");
    for _ in 0..2 {
        device.crash();
        device.connect();
        assert_eq!(device.take_updates("r-1"), said);
        device.hear(&federated("t-1", 0, "r-1", 0));
        assert_eq!(device.take_result(), result);
        assert!(device.runs.is_empty());
    }
    device.accept("r-1");
    device.crash();
    device.connect();
    assert_eq!(device.take_updates("r-1").len(), 0);
}

#[test]
fn the_oldest_results_go_first_also_after_a_restart() {
    let mut device = Device::connected(|config| config.results_kept_max = 2);
    for task in ["t-9", "t-8", "t-1", "t-5", "t-7"] {
        device.hear(&plain(task, 0));
        device.print(task, 0, "1");
        device.crash();
        device.connect();
    }
    device.said.clear();
    device.hear(&plain("t-5", 0));
    device.hear(&plain("t-7", 0));
    assert_eq!(device.take_results().len(), 2);
    device.hear(&plain("t-1", 0));
    assert_eq!(device.runs.len(), 1, "forgotten, so it runs again");
}

#[test]
fn a_shutdown_interrupts_says_goodbye_and_then_nothing_more() {
    let mut device = Device::connected(|config| config.concurrency = 2);
    device.hear(&plain("t-1", 0));
    device.hear(&federated("t-2", 0, "r-1", 0));
    device.hear(&plain("t-3", 0));
    device.said.clear();
    device.step(Input::Report(Report::Shutdown));
    let results = device.take_results();
    assert_eq!(results.len(), 2);
    assert!(results.iter().all(|it| it.code.as_ref().is_some_and(|code| code.0 == "interrupted")));
    let alive = device.take_alive();
    assert_eq!(alive.len(), 1);
    assert_eq!((alive[0].status, &alive[0].tasks), (AliveStatus::Offline, &held(&[])));
    assert!(!device.stopped, "one run has not ended yet");
    assert_eq!(device.agent.deadline(), None);

    device.hear(&plain("t-4", 0));
    device.wait(Duration::from_secs(60));
    device.finish("t-1", 0, failed("cancelled", "the job was cancelled"));
    assert!(device.stopped);
    assert_eq!(device.said, vec![]);
}

#[test]
fn a_shutdown_of_an_idle_device_is_over_at_once() {
    let mut device = Device::new(|_| {});
    device.step(Input::Report(Report::Shutdown));
    assert!(device.stopped && device.said.is_empty());
    device.connect();
    assert_eq!(device.said, vec![]);
}

#[test]
fn a_report_of_a_run_from_before_the_crash_is_not_believed() {
    let mut device = Device::connected(|_| {});
    device.hear(&plain("t-1", 0));
    let runs = device.runs.clone();
    device.crash();
    device.connect();
    device.said.clear();
    device.runs = runs.clone();
    device.finish("t-1", 0, printed("1"));
    assert_eq!(device.said, vec![]);

    device.hear(&plain("t-1", 1));
    device.runs.extend(runs);
    device.finish("t-1", 0, printed("1"));
    assert_eq!(device.take_results(), vec![], "another attempt runs now");
    device.print("t-1", 1, "2");
    assert_eq!(device.take_result().attempt, Some(1));
}
