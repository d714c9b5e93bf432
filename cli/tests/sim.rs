//! Every scenario in `scenarios/` holds what it claims, and a run is one history however it is run.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const AILERON: &str = env!("CARGO_BIN_EXE_aileron");

#[test]
fn every_scenario_holds_what_it_claims() {
    let mut files: Vec<PathBuf> = fs::read_dir(scenarios())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        // Those with containers are run by the end-to-end stories, which bring an engine.
        .filter(|path| !fs::read_to_string(path).unwrap().contains("type: docker"))
        .collect();
    files.sort();
    assert!(files.len() >= 7, "{files:?}");
    for file in files {
        let output = sim(&["run", file.to_str().unwrap()]);
        let said = text(&output);
        assert!(output.status.success(), "{}\n{said}", file.display());
        assert!(said.contains("holds: "), "{} claims nothing", file.display());
    }
}

#[test]
fn real_training_is_the_same_history_on_any_number_of_threads() {
    let file = scenarios().join("three-proplets.yaml");
    let file = file.to_str().unwrap();
    let traces: Vec<String> = ["1", "2", "8", "1"]
        .into_iter()
        .map(|threads| text(&sim(&["run", file, "--threads", threads])))
        .map(|said| said.lines().find(|line| line.starts_with("trace ")).unwrap().to_owned())
        .collect();
    assert!(traces.iter().all(|trace| *trace == traces[0]), "{traces:?}");
    let other = text(&sim(&["run", file, "--seed", "2"]));
    assert!(!other.contains(&traces[0]), "another seed is another history");
}

#[test]
fn two_traces_are_compared_event_by_event() {
    let dir = tempfile::tempdir().unwrap();
    let file = scenarios().join("stragglers.yaml");
    let trace = |name: &str, seed: &str| {
        let path = dir.path().join(name);
        let flags = ["--trace", path.to_str().unwrap(), "--seed", seed];
        let output = sim(&[&["run", file.to_str().unwrap()], &flags[..]].concat());
        assert!(output.status.success(), "{}", text(&output));
        path.to_str().unwrap().to_owned()
    };
    let (a, b, c) = (trace("a.ndjson", "5"), trace("b.ndjson", "5"), trace("c.ndjson", "6"));
    assert!(fs::read_to_string(&a).unwrap().lines().count() > 100);
    assert!(sim(&["diff", &a, &b]).status.success());
    let parted = sim(&["diff", &a, &c]);
    assert_eq!(parted.status.code(), Some(1));
    assert!(text(&parted).contains("the traces part at event "), "{}", text(&parted));
    let shown = trace("d.json", "5");
    let events: Vec<serde_json::Value> =
        serde_json::from_str(&fs::read_to_string(shown).unwrap()).unwrap();
    assert!(events.len() > 100);
}

#[test]
fn a_wrong_scenario_is_told_all_that_is_wrong_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong.yaml");
    let wrong = "nodes:\n  - { id: a, devise: pi4 }\n  - { id: 'b/c' }\nrouns: []\n";
    fs::write(&file, wrong).unwrap();
    let output = sim(&["check", file.to_str().unwrap()]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1));
    for part in
        ["wrong.yaml:2:", "did you mean `device`?", "wrong.yaml:4:", "did you mean `rounds`?"]
    {
        assert!(said.contains(part), "{part} is missing in\n{said}");
    }
    let fine = scenarios().join("three-proplets.yaml");
    assert!(sim(&["check", fine.to_str().unwrap()]).status.success());
}

#[test]
fn a_claim_that_does_not_hold_fails_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("claim.yaml");
    let claim =
        "nodes: [{ id: p, count: 2 }]\nrounds: [{ id: r }]\nassertions: [rounds_complete == 2]\n";
    fs::write(&file, claim).unwrap();
    let output = sim(&["run", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(said.contains("FAILS: rounds_complete == 2 (found 1)"), "{said}");
}

#[test]
fn a_sweep_shows_every_combination() {
    let file = scenarios().join("stragglers.yaml");
    let vary = ["--seeds", "2", "--vary", "rounds.0.k_of_n=7,8", "--vary", "rounds.0.repeat=5"];
    let output = sim(&[&["sweep", file.to_str().unwrap()], &vary[..]].concat());
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("5 of 5").count(), 4, "{said}");
}

#[test]
fn a_short_swarm_keeps_every_promise() {
    let output = sim(&["swarm", "--seeds", "60"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("60 runs"), "{}", text(&output));
}

fn sim(words: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    Command::new(AILERON).arg("sim").args(words).current_dir(dir.path()).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("scenarios")
}
