//! Workloads as images in a registry: pushed, pulled, delivered and refused, over real processes.

#![allow(clippy::unwrap_used, reason = "tests")]

mod cosign;

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use e2e::{
    BrokerKind, Ended, ImageRegistry, Operator, Peer, RoundPlan, Stack, StackPlan, Turn, Victim,
    Visitors, aileron, judge, one_hot_base64, versions_are_whole,
};
use protocol::message::TaskStart;
use serde_json::{Value, json};
use tempfile::TempDir;

const PROPLETS: usize = 3;
const STARTS: &str = "m/demo/c/fl/control/manager/+/start";

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn plan(registry: &ImageRegistry) -> StackPlan {
    let plan = StackPlan::new(BrokerKind::Embedded, PROPLETS).with("PROPLET_ALIVE_INTERVAL_S", 2);
    plan.with("MANAGER_REGISTRY_PLAIN_HTTP", registry.host())
        .with("PROPLET_REGISTRY_PLAIN_HTTP", registry.host())
        .with("PROPLET_REGISTRY_STALL_S", 2)
        .with("MANAGER_REGISTRY_STALL_S", 2)
}

fn one_hot(dir: &Path) -> PathBuf {
    let path = dir.join("one-hot.wasm");
    fs::write(&path, STANDARD.decode(one_hot_base64()).unwrap()).unwrap();
    path
}

/// Another module, for tasks that belong to no round.
fn other(dir: &Path) -> PathBuf {
    let path = dir.join("other.wasm");
    let wat = "(module (memory (export \"memory\") 1) (func (export \"_start\")))";
    fs::write(&path, wat::parse_str(wat).unwrap()).unwrap();
    path
}

fn round(plan: &StackPlan, id: &str, base: u64, image: &str) -> RoundPlan {
    let round = RoundPlan::one_hot(&plan.fleet, id, base);
    RoundPlan { image: Some(image.to_owned()), ..round }
}

fn starts(tap: &Peer) -> Vec<TaskStart> {
    tap.all(STARTS).iter().map(|heard| serde_json::from_slice(&heard.payload).unwrap()).collect()
}

/// Runs a task on the first proplet to its end.
fn task(stack: &Stack, task: Value) -> Value {
    let id = stack.http.run_task(&task);
    stack.http.wait_for_end(&id)
}

fn why(ended: Ended) -> String {
    match ended {
        Ended::Failed(why) => why.to_string(),
        Ended::Complete(complete) => panic!("it did not fail: {complete:?}"),
    }
}

#[test]
fn a_round_runs_an_image_and_later_ones_without_a_registry() {
    let _turn = Turn::take();
    let dir = dir();
    let mut registry = ImageRegistry::start(dir.path(), Visitors::All);
    let pushed = registry.push(&one_hot(dir.path()), ":1", &[]).unwrap();
    let plan = plan(&registry);
    let mut stack = plan.start();
    let operator = stack.operator();
    stack.wait_until_introduced();
    let tap = Peer::connect(stack.field().port(), &["m/#"]);

    let complete = operator.run(&round(&plan, "r-0", 0, &registry.image(":1")));
    assert_eq!(judge(&operator, &plan.fleet, &complete).len(), PROPLETS, "{complete:?}");
    let by_digest = pushed["image"].as_str().unwrap();
    let sent = starts(&tap);
    assert_eq!(sent.len(), PROPLETS);
    for start in sent {
        assert_eq!(start.image_url.as_deref(), Some(by_digest));
        assert!(start.file.is_none() && start.file_blob.is_none());
    }

    registry.process.kill();
    let complete = operator.run(&round(&plan, "r-1", 1, by_digest));
    assert_eq!(judge(&operator, &plan.fleet, &complete).len(), PROPLETS, "{complete:?}");
    versions_are_whole(&operator, 2);

    // Nobody can say what the tag means now: the round fails soon, and says why.
    let round = round(&plan, "r-2", 2, &registry.image(":1"));
    operator.start(&round);
    why(operator.wait_for_end(&round.id));
    let absent = operator.peer().wait_for("fl/rounds/r-2/absent").text();
    assert!(absent.contains("cannot be reached"), "{absent}");
}

#[test]
fn a_tag_that_moves_in_mid_round_moves_nothing() {
    let _turn = Turn::take();
    let dir = dir();
    let registry = ImageRegistry::start(dir.path(), Visitors::All);
    let pushed = registry.push(&one_hot(dir.path()), ":1", &[]).unwrap();
    let plan = plan(&registry);
    let mut stack = plan.start();
    let operator = stack.operator();
    stack.wait_until_introduced();
    let tap = Peer::connect(stack.field().port(), &["m/#"]);
    let mut round = round(&plan, "r-0", 0, &registry.image(":1"));
    round.hyperparams = plan.fleet.hyperparams(4000);
    let from = tap.cursor();
    operator.start(&round);
    tap.wait_after(from, STARTS, |_| true);
    let moved = registry.push(&other(dir.path()), ":1", &[]).unwrap();
    assert_ne!(moved["image"], pushed["image"]);
    // Both have to do with the task again.
    for victim in [Victim::Manager, Victim::Proplet] {
        stack.kill(victim);
        stack.start_again(victim);
    }
    let complete = operator.wait_for_complete(&round.id);
    assert_eq!(judge(&operator, &plan.fleet, &complete).len(), PROPLETS, "{complete:?}");
    let sent = starts(&tap);
    assert!(sent.len() >= PROPLETS, "{sent:?}");
    assert!(sent.iter().all(|it| it.image_url.as_deref() == pushed["image"].as_str()), "{sent:?}");
}

#[test]
fn proplets_that_reach_no_registry_get_the_module_from_the_manager() {
    let _turn = Turn::take();
    let dir = dir();
    let registry = ImageRegistry::start(dir.path(), Visitors::Known);
    let module = one_hot(dir.path());
    let refused = registry.push(&module, ":1", &[]).unwrap_err();
    assert!(refused.contains("401"), "{refused}");
    let login = registry.login(dir.path());
    let flags: Vec<String> = login
        .iter()
        .flat_map(|(name, value)| [format!("--registry-{}", name.replace('_', "-")), value.clone()])
        .collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let pushed = registry.push(&module, ":1", &flags).unwrap();
    let mut plan = plan(&registry).with("PROPLET_IMAGE_PULL", "off");
    for (name, value) in login {
        plan = plan.with(&format!("MANAGER_REGISTRY_{}", name.to_uppercase()), value);
    }
    let mut stack = plan.start();
    let operator = stack.operator();
    stack.wait_until_introduced();
    let tap = Peer::connect(stack.field().port(), &["m/#"]);
    let complete = operator.run(&round(&plan, "r-0", 0, &registry.image(":1")));
    assert_eq!(judge(&operator, &plan.fleet, &complete).len(), PROPLETS, "{complete:?}");
    for start in starts(&tap) {
        assert_eq!(start.image_url.as_deref(), pushed["image"].as_str());
        let blob = start.file_blob.expect("the module goes in pieces");
        assert_eq!(pushed["module_sha256"], blob.sha256().to_string());
    }
}

#[test]
fn a_device_runs_what_its_owner_s_signers_have_signed_and_nothing_else() {
    let _turn = Turn::take();
    let dir = dir();
    let registry = ImageRegistry::start(dir.path(), Visitors::All);
    let key = |name: &str| {
        let path = dir.path().join(name);
        let made = process::Command::new(aileron()).args(["workload", "key"]).arg(&path).output();
        (path.display().to_string(), String::from_utf8(made.unwrap().stdout).unwrap())
    };
    let ((ann, public), (eve, _)) = (key("ann.key"), key("eve.key"));
    let signers = dir.path().join("signers");
    fs::write(&signers, format!("# ours\n{public}")).unwrap();
    let module = other(dir.path());
    registry.push(&module, ":signed", &["--signing-key", &ann]).unwrap();
    registry.push(&module, ":stranger", &["--signing-key", &eve]).unwrap();
    registry.push(&module, ":unsigned", &[]).unwrap();
    let bytes = STANDARD.encode(fs::read(&module).unwrap());

    for delivery in ["proplet", "manager"] {
        let plan = plan(&registry)
            .with("PROPLET_MODULE_POLICY", "signed")
            .with("PROPLET_MODULE_SIGNERS_FILE", signers.display())
            .with("MANAGER_IMAGE_DELIVERY", delivery);
        let stack = plan.start();
        let _operator: Operator = stack.operator();
        let image = |tag: &str| json!({"name": tag, "image_url": registry.image(tag)});
        let done = task(&stack, image(":signed"));
        assert_eq!(done["state"], "Completed", "{delivery}: {done}");
        for (tag, word) in [(":stranger", "not among the signers"), (":unsigned", "is not signed")]
        {
            let done = task(&stack, image(tag));
            assert_eq!(
                (&done["state"], &done["code"]),
                (&json!("Failed"), &json!("module_unsigned"))
            );
            assert!(done["error"].as_str().unwrap().contains(word), "{delivery}: {done}");
        }
        let done = task(&stack, json!({"name": "file", "file": bytes}));
        assert_eq!(done["code"], "module_unsigned", "{done}");
    }
}
