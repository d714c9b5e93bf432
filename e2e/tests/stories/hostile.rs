//! Hostile guests on a real proplet: each is a failed task with its reason, the proplet lives, and
//! the next task runs.

use e2e::{BrokerKind, Http, Operator, Stack, StackPlan, Turn};
use serde_json::{Value, json};

use crate::guest;

/// Guest, and a word of the error that its task ends with.
const ALONE: &[(&str, &str)] = &[
    ("loop-forever", "longer than its limit"),
    ("sleep-forever", "longer than its limit"),
    ("grow-memory", "memory"),
    ("declare-memory", "memory"),
    ("grow-table", ""),
    ("recurse", "trap"),
    ("trap", "trap"),
    ("flood-stdout", "more"),
    ("exit-3", "exit code 3"),
    ("no-entry", "exports no"),
    ("open-parent", "exit code 40"),
    ("open-absolute", "exit code 40"),
    ("open-symlink", "exit code 40"),
    ("update-then-trap", "trap"),
];

/// Guest that runs as part of a round: what it prints has to be an update.
const FEDERATED: &[(&str, &str)] = &[
    ("garbage", ""),
    ("silent", ""),
    ("nan-update", ""),
    ("infinite-update", ""),
    ("zero-samples", "num_samples"),
    ("trap", "trap"),
];

#[test]
fn hostile_guests_fail_with_a_reason_and_the_proplet_lives() {
    let _turn = Turn::take();
    let stack = plan().start();
    let operator = stack.operator();
    let mut stack = stack;
    for (name, word) in ALONE {
        fails(stack.http, &json!({"name": name, "file": guest(name), "retries": 0}), word);
        the_next_task_runs(stack.http, name);
    }
    for (name, word) in FEDERATED {
        let env = json!({"ROUND_ID": "r-hostile", "MODEL_URI": "fl/models/global_model_v0",
                         "HYPERPARAMS": "{}"});
        fails(
            stack.http,
            &json!({"name": name, "file": guest(name), "env": env, "retries": 0}),
            word,
        );
        the_next_task_runs(stack.http, name);
    }
    assert_eq!(stack.proplets[0].has_ended(), None, "the proplet has died");
    nothing_was_published(&operator);
    memory_stays_small(&stack);
}

#[test]
fn a_round_of_hostile_guests_ends_at_once_because_all_are_absent() {
    let _turn = Turn::take();
    let plan = plan();
    let stack = plan.start();
    let operator = stack.operator();
    let mut round = e2e::RoundPlan::one_hot(&plan.fleet, "r-hostile", 0);
    round.file = Some(guest("garbage"));
    // Far longer than the story waits: only absence can end it.
    round.timeout_s = 3600;
    operator.start(&round);
    let absent = operator.peer().wait_for("fl/rounds/r-hostile/absent").json();
    assert_eq!(
        (&absent["proplet_id"], &absent["reason"]),
        (&json!("proplet-1"), &json!("task_failed"))
    );
    assert!(absent["error"].is_string(), "{absent}");
    let e2e::Ended::Failed(failed) = operator.wait_for_end("r-hostile") else { panic!("a model") };
    assert_eq!(failed["reason"], "all_absent", "{failed}");
}

fn plan() -> StackPlan {
    StackPlan::new(BrokerKind::Embedded, 1)
        .with("PROPLET_WALL_S_MAX", 1)
        .with("PROPLET_MEMORY_BYTES_MAX", 64 << 20)
        .with("PROPLET_OUTPUT_BYTES_MAX", 1 << 20)
}

#[track_caller]
fn fails(http: Http, task: &Value, word: &str) {
    let name = &task["name"];
    let ended = http.wait_for_end(&http.run_task(task));
    assert_eq!(ended["state"], "Failed", "{name}: {ended}");
    let error = ended["error"].as_str().unwrap_or_else(|| panic!("{name} fails without a word"));
    assert!(!error.is_empty() && error.contains(word), "{name} lacks {word:?}: {error}");
}

#[track_caller]
fn the_next_task_runs(http: Http, after: &str) {
    let task = json!({"name": format!("after-{after}"), "file": guest("valid-update")});
    let ended = http.wait_for_end(&http.run_task(&task));
    assert_eq!(ended["state"], "Completed", "after {after}: {ended}");
}

fn nothing_was_published(operator: &Operator) {
    let updates = operator.peer().all("fl/rounds/r-hostile/updates/+");
    assert!(updates.is_empty(), "an update of a hostile guest went out: {updates:?}");
}

/// The guests' memory is gone; what the compiler needed in a debug build is allowed for.
fn memory_stays_small(stack: &Stack) {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", stack.proplets[0].pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 300 * 1024, "the proplet holds {kib} KiB after the guests have gone");
}
