//! Guests that somebody else has built, in a scenario: their sleep takes no wall time, and what they
//! see of clocks and dice is the same on every run.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use crate::{json as asked, sim, text, written};

const NEEDS: &str = "guests in C are built with the packages clang, lld and wasi-libc";

/// A participant in C, built by another compiler with another library.
fn build(dir: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness/sleeper.c");
    let mut command = Command::new("clang");
    command
        .args(["--target=wasm32-wasi", "-O1", "-o", "sleeper.wasm"])
        .arg(source)
        .current_dir(dir);
    let output = command.output().unwrap_or_else(|why| panic!("{command:?}: {why}; {NEEDS}"));
    assert!(output.status.success(), "{command:?}: {}; {NEEDS}", text(&output));
}

#[test]
fn a_guest_in_c_sleeps_ten_seconds_of_virtual_time_the_same_on_every_run() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let file = "\
simulation: { seed: 4, until: 60min }
nodes: [{ id: p, count: 3, fidelity: wasm }]
rounds: [{ id: r, repeat: 60, timeout: 20s, image: sleeper.wasm }]
assertions: [rounds_complete == 60, loss >= 10000, loss < 10010, virtual_s > 600, virtual_s < 620]
";
    let file = written(dir.path(), "sleepers.yaml", file);
    let runs = ["1", "2"].map(|threads| asked(&["run", &file, "--threads", threads]));
    for run in &runs {
        assert_eq!(run["holds"], true, "{run:#}");
        // Half an hour of sleep.
        assert!(run["wall_s"].as_f64().unwrap() < 300.0);
    }
    assert_eq!(runs[0]["versions"], runs[1]["versions"]);
    assert_eq!(runs[0]["trace_sha256"], runs[1]["trace_sha256"]);
    let other = asked(&["run", &file, "--seed", "5"]);
    assert_ne!(runs[0]["versions"], other["versions"], "the dice are the seed's");

    // A round whose time is over before they wake is over then.
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("timeout: 20s", "timeout: 4s").replace("repeat: 60", "repeat: 1");
    let short = asked(&["run", &written(dir.path(), "short.yaml", text)]);
    assert_eq!(short["rounds_complete"], 0);
    let took = short["virtual_us"].as_u64().unwrap();
    assert!((6_000_000..7_000_000).contains(&took), "{took}");
}

#[test]
fn an_image_that_is_not_there_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let file = "nodes: [{ id: p, fidelity: wasm }]\nrounds: [{ id: r, image: none.wasm }]\n";
    let file = written(dir.path(), "s.yaml", file);
    assert!(text(&sim(&["check", &file])).contains("round r: none.wasm is not there"));
    let checked = asked(&["check", &file]);
    assert_eq!(checked["missing"], json!(["round r: none.wasm is not there"]));
}
