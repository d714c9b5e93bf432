//! Formatting, lints, licences and sources, as tests: `cargo test` is the whole of CI.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{path::Path, process::Command};

#[test]
fn the_code_is_formatted() {
    run("fmt", &["fmt", "--all", "--check"]);
}

#[test]
fn clippy_has_nothing_to_say() {
    run("clippy", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]);
}

/// Advisories need a database from the network, so they are checked by `cargo deny check` by hand.
#[test]
fn dependencies_have_known_licences_and_come_from_known_places() {
    run("deny", &["deny", "check", "bans", "licenses", "sources"]);
}

#[track_caller]
fn run(what: &str, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root).output().unwrap();
    assert!(
        output.status.success(),
        "cargo {what} ({}); .ci/setup installs what may be missing\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
