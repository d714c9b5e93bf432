//! What surrounds a simulated run: files of another format, tables, programs that compute tasks, guests
//! that sleep.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "harness/fidelities.rs"]
mod fidelities;
#[path = "harness/files.rs"]
mod files;
#[path = "harness/guests.rs"]
mod guests;
#[path = "harness/xedgesim.rs"]
mod xedgesim;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

const AILERON: &str = env!("CARGO_BIN_EXE_aileron");

/// `aileron sim` with these words, in a directory of its own.
fn sim(words: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    Command::new(AILERON).arg("sim").args(words).current_dir(dir.path()).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// What it says in JSON, whatever its exit code.
#[track_caller]
fn json(words: &[&str]) -> Value {
    let output = sim(&[words, &["--format", "json"]].concat());
    let read = serde_json::from_slice(&output.stdout);
    read.unwrap_or_else(|why| panic!("{words:?}: {why}\n{}", text(&output)))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn scenario(name: &str) -> String {
    root().join("scenarios").join(name).to_str().unwrap().to_owned()
}

/// A file in a directory.
fn written(dir: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}
