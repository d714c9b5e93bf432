//! The main job as a new user runs it: it trains, it says how well, and it leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

const AILERON: &str = env!("CARGO_BIN_EXE_aileron");

#[test]
fn ten_rounds_come_within_a_point_and_a_half_of_training_in_one_place() {
    let dir = tempfile::tempdir().unwrap();
    let output = demo(dir.path(), &[]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let federated = percent(&said, "federated, 3 proplets");
    let central = percent(&said, "the same model");
    assert!(central > 90.0, "{said}");
    assert!(federated > central - 1.5, "{said}");
    for version in 0..=10 {
        let file = dir.path().join(format!("run/model-server/global_model_v{version}.json"));
        let model: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(model["version"], version);
    }
}

#[test]
fn one_seed_makes_the_same_models() {
    let models = || {
        let dir = tempfile::tempdir().unwrap();
        let flags = ["--rounds", "3", "--seed", "7", "--proplets", "4", "--alpha", "0.3"];
        let output = demo(dir.path(), &flags);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read(dir.path().join("run/model-server/global_model_v3.json")).unwrap()
    };
    assert_eq!(models(), models());
}

#[test]
fn another_model_and_other_data_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("mine");
    fs::create_dir(&data).unwrap();
    let rows: String = (0..200)
        .map(|i| format!("{},{},{}\n", i % 7, (i * 3) % 5, usize::from(i % 7 > 3)))
        .collect();
    fs::write(data.join("rows.csv"), rows).unwrap();
    let hyperparams = r#"{"model":"mlp","hidden":8,"scale":7}"#;
    let flags =
        ["--rounds", "2", "--hyperparams", hyperparams, "--data-dir", data.to_str().unwrap()];
    let output = demo(dir.path(), &flags);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn images_and_text_have_models_of_their_own() {
    for (model, tensor) in [("cnn", "conv2.w"), ("bigram", "w"), ("gru", "gru.uz")] {
        let dir = tempfile::tempdir().unwrap();
        let output = demo(dir.path(), &["--rounds", "3", "--model", model]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(percent(&said, "federated, 3 proplets") > 20.0, "{said}");
        let file = dir.path().join("run/model-server/global_model_v3.json");
        let model: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert!(model[tensor].is_array(), "{tensor} is missing");
    }
}

#[test]
fn ctrl_c_at_any_moment_leaves_nothing_behind() {
    for (moment, flags) in [("Aileron demo", "40"), ("    1  ", "400"), ("    7  ", "400")] {
        let dir = tempfile::tempdir().unwrap();
        let keep = dir.path().join("run");
        let mut child = spawn(&keep, &["--rounds", flags]);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().starts_with(moment)), "{moment:?} was not said");
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
        // The pipe must not fill up while it says goodbye.
        let rest = std::thread::spawn(move || lines.count());
        let status = child.wait().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        rest.join().unwrap();
        assert_eq!(status.code(), Some(130), "{moment:?}: {said}");
        assert!(said.contains("nothing is left running"), "{said}");
        // A lock or a port that was left would stop the next one.
        let again = demo(dir.path(), &["--rounds", "1"]);
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    }
}

#[test]
fn what_cannot_be_played_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("precious"), "data").unwrap();
    let precious = dir.path().to_str().unwrap();
    for (flags, said) in [
        (&["--proplets", "0"][..], "proplets takes at least 1, not 0"),
        (&["--rounds", "0"], "rounds takes at least 1, not 0"),
        (&["--k", "4"], "k takes 1 to 3 (the proplets), not 4"),
        (&["--hyperparams", "[1]"], "hyperparams takes a JSON object"),
        (&["--hyperparams", r#"{"lr":-1}"#], "lr"),
        (&["--alpha", "0"], "alpha takes a number above 0, not 0"),
        (&["--data-dir", "/nowhere"], "/nowhere"),
        (&["--keep", precious], "holds something else than a demo"),
    ] {
        let output = Command::new(AILERON)
            .arg("demo")
            .args(flags)
            .current_dir(tempfile::tempdir().unwrap().path())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(said), "{flags:?}: {stderr}");
    }
    assert!(dir.path().join("precious").exists());
}

fn demo(dir: &Path, flags: &[&str]) -> Output {
    spawn(&dir.join("run"), flags).wait_with_output().unwrap()
}

fn spawn(keep: &Path, flags: &[&str]) -> Child {
    Command::new(AILERON)
        .arg("demo")
        .arg("--keep")
        .arg(keep)
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The percentage in the line that holds `what`.
fn percent(said: &str, what: &str) -> f64 {
    let line = said.lines().find(|line| line.contains(what)).expect(what);
    let before = line.split(" %").next().unwrap();
    before.rsplit(' ').next().unwrap().parse().unwrap()
}
