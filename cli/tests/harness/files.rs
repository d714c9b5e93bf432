//! What is said of scenarios and their traces: tables, JSON, captures.

use std::{
    fs,
    io::{Write, stderr},
    process::Command,
};

use serde_json::json;

use crate::{json as asked, scenario, sim, text, written};

#[test]
fn a_check_shows_nodes_links_and_lookahead() {
    let dir = tempfile::tempdir().unwrap();
    let file = "\
network:
  model: latency
  default: { latency_us: 5000 }
  links: [{ src: 'p-1', dst: broker, latency_us: 70000 }, { src: a, dst: b, latency_us: 250 }]
nodes:
  - { id: p, count: 3, device: pi4, fidelity: wasm, data: digits }
  - { id: a, type: process, process: { command: [cat] } }
  - { id: b, type: tcp, step: 1ms, tcp: { address: '127.0.0.1:9' } }
";
    let file = written(dir.path(), "s.yaml", file);
    let checked = asked(&["check", &file]);
    let rows = checked["tables"]["links"].as_array().unwrap();
    let row = |from: &str, to: &str| {
        let row = rows.iter().find(|row| row["from"] == from && row["to"] == to);
        row.unwrap_or_else(|| panic!("{from} to {to}: {checked:#}"))["latency_us"].clone()
    };
    assert_eq!(row("p-0", "broker"), 5_000);
    assert_eq!(row("p-1", "broker"), 70_000);
    assert_eq!(row("broker", "p-0 .. 2"), 5_000, "alike links are one row");
    assert_eq!((row("a", "b"), row("b", "a")), (json!(250), json!(5_000)));
    let ahead = &checked["tables"]["lookahead"];
    assert_eq!(ahead[0], json!({ "node": "a", "lookahead_us": 250, "window_us": 250 }));
    assert_eq!(ahead[1], json!({ "node": "b", "lookahead_us": 5_000, "window_us": 1_000 }));
    let said = text(&sim(&["check", &file]));
    for part in ["p-0 .. 2", "70ms", "250us", "lookahead", "is fine: 5 nodes"] {
        assert!(said.contains(part), "{part} is missing in\n{said}");
    }
}

#[test]
fn every_answer_can_be_had_as_json() {
    let file = scenario("stragglers.yaml");
    let run = asked(&["run", &file]);
    assert_eq!((&run["holds"], &run["rounds_complete"]), (&json!(true), &json!(5)), "{run:#}");
    assert_eq!(run["claims"].as_array().unwrap().len(), 3);
    let swept = asked(&["sweep", &file, "--seeds", "1", "--vary", "rounds.0.k_of_n=7,8"]);
    assert_eq!(swept["runs"][1]["varied"], json!({ "rounds.0.k_of_n": 8 }));
    assert_eq!(swept["runs"][1]["trace_sha256"], run["trace_sha256"], "{swept:#}");
    let swarm = asked(&["swarm", "--seeds", "2"]);
    assert_eq!((&swarm["runs"], &swarm["failures"]), (&json!(2), &json!([])));
    let dir = tempfile::tempdir().unwrap();
    let wrong = written(dir.path(), "wrong.yaml", "nodes:\n  - { id: a, devise: pi4 }\n");
    let checked = asked(&["check", &wrong]);
    assert_eq!((&checked["fine"], &checked["mistakes"][0]["line"]), (&json!(false), &json!(2)));
    let trace = |name: &str, seed: &str| {
        let path = dir.path().join(name).to_str().unwrap().to_owned();
        assert!(sim(&["run", &file, "--seed", seed, "--trace", &path]).status.success());
        path
    };
    let (a, b) = (trace("a.ndjson", "1"), trace("b.ndjson", "2"));
    assert_eq!(asked(&["diff", &a, &a]), json!({ "same": true }));
    let parted = asked(&["diff", &a, &b]);
    assert_eq!(parted["same"], false);
    assert!(parted["left"]["time_us"].is_u64() && parted["left"] != parted["right"], "{parted:#}");
}

#[test]
fn the_schema_is_printed() {
    let output = sim(&["schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let published = fs::read_to_string(crate::root().join("docs/scenario.schema.json")).unwrap();
    assert_eq!(schema, serde_json::from_str::<serde_json::Value>(&published).unwrap());
}

/// With Wireshark's own reader, where there is one.
#[test]
fn a_capture_is_read_by_wireshark() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.pcap").to_str().unwrap().to_owned();
    assert!(sim(&["run", &scenario("three-proplets.yaml"), "--trace", &file]).status.success());
    let read = |filter: &str| {
        let mut command = Command::new("tshark");
        command.args([
            "-r",
            &file,
            "-o",
            "tcp.check_checksum:TRUE",
            "-o",
            "ip.check_checksum:TRUE",
        ]);
        command.args(["-Y", filter, "-T", "fields", "-e", "mqtt.topic", "-e", "frame.time_epoch"]);
        let output = command.env("HOME", dir.path()).output().ok()?;
        assert!(output.status.success(), "{}", text(&output));
        Some(String::from_utf8(output.stdout).unwrap())
    };
    let Some(published) = read("mqtt.msgtype == 3") else {
        // Not `eprintln!`, which the harness of the tests keeps to itself.
        let said = "\nNO TSHARK, THE CAPTURE WAS NOT READ: apt-get install tshark\n\n";
        return stderr().write_all(said.as_bytes()).unwrap();
    };
    // Large messages are in several segments; each topic of a round is there.
    for part in ["round", "update", "models"] {
        assert!(published.contains(part), "{part} is missing in\n{published}");
    }
    assert!(published.lines().count() > 100, "{published}");
    for wrong in [
        "_ws.malformed",
        "ip.checksum.status == 0",
        "tcp.checksum.status == 0",
        "tcp.analysis.flags && !tcp.analysis.initial_rtt",
        "tcp.port == 1883 && tcp.len > 0 && !mqtt && !tcp.segment",
    ] {
        assert_eq!(read(wrong).unwrap(), "", "{wrong}");
    }
}
