//! What the program says of itself, pinned. `AILERON_BLESS=1 cargo test -p cli --test help` writes
//! it anew.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{fs, path::PathBuf, process::Command};

const AILERON: &str = env!("CARGO_BIN_EXE_aileron");

#[test]
fn every_command_explains_itself() {
    for words in [
        "",
        "demo",
        "up",
        "round start",
        "round watch",
        "task create",
        "task list",
        "proplet list",
        "model list",
        "model get",
        "model import",
        "model export",
        "workload new",
        "workload build",
        "workload check",
        "workload run",
        "bench aggregate",
        "bench codec",
        "bench round",
        "bench transfer",
        "manager",
        "coordinator",
        "model-server",
        "proplet",
        "broker",
        "registrar",
        "token join",
        "enroll",
        "kit",
        "kit install",
        "preflight",
    ] {
        let mut arguments: Vec<&str> = words.split_whitespace().collect();
        arguments.push("--help");
        let output = Command::new(AILERON).args(&arguments).output().unwrap();
        assert!(output.status.success(), "{words}");
        let said = String::from_utf8(output.stdout).unwrap();
        let name = if words.is_empty() { "aileron".to_owned() } else { words.replace(' ', "-") };
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/help/{name}.txt"));
        if std::env::var_os("AILERON_BLESS").is_some() {
            fs::write(&path, &said).unwrap();
        }
        let pinned = fs::read_to_string(&path).unwrap_or_default();
        assert!(pinned == said, "{} is out of date:\n{said}", path.display());
    }
}

#[test]
fn a_misspelt_command_line_is_told_so() {
    for words in ["fly", "round start --participants a,#", "model get x", "manager --http-prt 1"] {
        let output = Command::new(AILERON).args(words.split(' ')).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{words}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{words}");
    }
}

#[test]
fn settings_can_be_looked_at_without_starting_anything() {
    let output = Command::new(AILERON)
        .args(["manager", "--print-config", "--http-port", "7171"])
        .env("MANAGER_DOMAIN_ID", "farm")
        .env("MANAGER_CLIENT_KEY", "hush")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(said.contains("http_port = 7171") && said.contains("domain_id = \"farm\""), "{said}");
    assert!(!said.contains("hush"), "{said}");
}

#[test]
fn nobody_there_is_said_clearly() {
    for (words, said) in [
        (&["proplet", "list", "--http", "http://127.0.0.1:1"][..], "http://127.0.0.1:1/proplets"),
        (
            &["model", "list", "--mqtt-address", "tcp://127.0.0.1:1", "--wait-s", "1"],
            "no MQTT broker at tcp://127.0.0.1:1 within 1 s",
        ),
    ] {
        let output = Command::new(AILERON).args(words).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && stderr.contains(said), "{words:?}: {stderr}");
    }
}
