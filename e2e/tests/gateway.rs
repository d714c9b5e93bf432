//! `scenarios/mqtt-broker.yaml`: a real Mosquitto in a run under virtual time takes no time, and in a paced one as much
//! as was declared.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use e2e::{aileron, eventually, tool};

#[test]
fn a_real_broker_takes_no_virtual_time() {
    tool("mosquitto");
    let [first, again] = [(); 2].map(|()| {
        let output = run(&scenario());
        assert!(output.status.success(), "{}", text(&output));
        let said = text(&output);
        assert!(said.matches("holds: ").count() >= 4, "{said}");
        said.lines().find(|line| line.starts_with("trace ")).unwrap().to_owned()
    });
    assert_eq!(first, again);
}

#[test]
fn a_paced_broker_is_held_to_what_is_declared_of_it() {
    tool("mosquitto");
    let dir = tempfile::tempdir().unwrap();
    // A minute is more than any machine takes for it, a microsecond less.
    let patient = run(&paced(dir.path(), 60_000_000));
    let said = text(&patient);
    assert!(said.contains("holds: events_inference_result == 100"), "{said}");
    let hasty = run(&paced(dir.path(), 1));
    let said = text(&hasty);
    assert_eq!(hasty.status.code(), Some(1), "{said}");
    assert!(said.contains("node gateway at ") && said.contains("us, declared are 1 us"), "{said}");
    eventually("no broker is left", || brokers(dir.path()).is_empty().then_some(()));
}

fn project() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap()
}

fn scenario() -> PathBuf {
    project().join("scenarios/mqtt-broker.yaml")
}

/// The scenario with a broker in real time, and sensors that have all the time there is.
fn paced(dir: &Path, variance_us: u64) -> PathBuf {
    let text = fs::read_to_string(scenario()).unwrap();
    let text = text.replace("../sdk", &project().join("sdk").display().to_string());
    let changes = [
        ("broker: mosquitto", format!("broker: mosquitto, variance_us: {variance_us}")),
        ("every_us: 200000", "every_us: 200000, deadline_us: 60000000".to_owned()),
    ];
    let text = changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{text}");
        text.replace(from, to)
    });
    let path = dir.join(format!("paced-{variance_us}.yaml"));
    fs::write(&path, text).unwrap();
    path
}

fn run(file: &Path) -> Output {
    let dir = tempfile::tempdir().unwrap();
    Command::new(aileron()).args(["sim", "run"]).arg(file).current_dir(dir.path()).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Brokers that run where a scenario of this test is.
fn brokers(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok).map(|entry| entry.path());
    entries.filter(|path| fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd == dir)).collect()
}
