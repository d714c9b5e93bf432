//! One seed, one history, on every build: the traces of some scenarios are written down, and every
//! build has to find the same, however often and on however many threads.
//!
//! `AILERON_SIM_PROGRAM` names the program to test in place of this build's: with it, a release
//! build is held against the same lines. After a change that is meant to change traces, write what
//! this test found into `sim_hash.txt`.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{env, path::Path, process::Command};

/// A scenario and the SHA-256 of its trace on each line.
const WRITTEN: &str = include_str!("sim_hash.txt");

#[test]
fn every_build_finds_the_traces_that_are_written_down() {
    let mut found = String::new();
    for line in WRITTEN.lines() {
        let (scenario, _) = line.split_once(' ').unwrap();
        let hashes: Vec<String> =
            ["1", "2", "8", "1", "1"].map(|threads| trace(scenario, threads)).to_vec();
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{scenario}: {hashes:?}");
        found += &format!("{scenario} {}\n", hashes[0]);
    }
    assert!(WRITTEN.lines().count() >= 2, "there is something to compare");
    assert_eq!(found, WRITTEN, "left is what this build found");
}

fn trace(scenario: &str, threads: &str) -> String {
    let program = env::var_os("AILERON_SIM_PROGRAM");
    let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_aileron").into());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(scenario);
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command.args(["sim", "run"]).arg(file).args(["--threads", threads]);
    let output = command.current_dir(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{scenario}\n{said}");
    let trace = said.lines().find_map(|line| line.strip_prefix("trace ")).unwrap();
    trace.to_owned()
}
