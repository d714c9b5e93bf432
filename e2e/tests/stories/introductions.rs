//! A manager that was not there when a proplet said who it is.

use std::fs;

use e2e::{BrokerKind, StackPlan, Turn, Victim, eventually};
use serde_json::json;

use crate::guest;

#[test]
fn a_manager_that_knows_a_proplet_by_its_signs_of_life_is_told_who_it_is_with_the_first_task() {
    let _turn = Turn::take();
    let plan = StackPlan::new(BrokerKind::Mosquitto, 1).with("PROPLET_ALIVE_INTERVAL_S", 1);
    let mut stack = plan.start();
    stack.wait_until_introduced();
    stack.kill(Victim::Manager);
    fs::remove_dir_all(stack.dir().join("manager-state")).unwrap();
    stack.start_again(Victim::Manager);
    stack.http.wait_for_alive(1);
    assert!(!stack.http.has_heard_of("proplet-1"), "a sign of life says little");

    let task = json!({"name": "first", "file": guest("valid-update"), "proplet_id": "proplet-1"});
    let ended = stack.http.wait_for_end(&stack.http.run_task(&task));
    assert_eq!(ended["state"], "Completed", "{ended}");
    eventually("the manager has heard of it", || {
        stack.http.has_heard_of("proplet-1").then_some(())
    });
}
