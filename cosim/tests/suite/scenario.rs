//! The scenario format: its schema is what is read, and every scenario that we ship is one.

use std::{collections::BTreeSet, fs, path::PathBuf};

use cosim::scenario::{Known, read, schema};
use jsonschema::Validator;
use serde_json::{Value, json};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn validator() -> Validator {
    jsonschema::validator_for(&schema()).unwrap()
}

/// `AILERON_BLESS=1 cargo test -p cosim --test suite scenario` writes it anew.
#[test]
fn the_published_schema_is_the_one_that_is_made_from_what_is_read() {
    let path = root().join("docs/scenario.schema.json");
    let made = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("AILERON_BLESS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == made,
        "{} is out of date",
        path.display()
    );
}

/// What a reader says that it knows where it is given a key that nobody knows.
fn known_keys(file: &str) -> BTreeSet<String> {
    let known = Known { classes: ["x86".to_owned()].into(), ..Known::default() };
    let mistakes = read(file, &known).unwrap_err();
    let said = mistakes.iter().find(|mistake| mistake.what.contains("unknown field `zzzz`"));
    let said = &said.unwrap_or_else(|| panic!("{file}: {mistakes:?}")).what;
    said.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

fn keys(schema: &Value) -> BTreeSet<String> {
    schema["properties"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn every_key_that_the_reader_knows_is_in_the_schema_and_no_other() {
    let schema = schema();
    let of = |name: &str| keys(&schema["$defs"][name]);
    for (name, file) in [
        ("Simulation", "simulation: { zzzz: 1 }"),
        ("PlatformSpec", "platform: { zzzz: 1 }"),
        ("BrokerSpec", "platform: { broker: { zzzz: 1 } }"),
        ("NetworkSpec", "network: { zzzz: 1 }"),
        ("LinkSpec", "network: { default: { zzzz: 1 } }"),
        ("LinkRule", "network: { links: [{ zzzz: 1 }] }"),
        ("SharedMedium", "network: { shared: [{ zzzz: 1 }] }"),
        ("Device", "devices: { d: { zzzz: 1 } }"),
        ("NodeSpec", "nodes: [{ zzzz: 1 }]"),
        ("ClockSpec", "nodes: [{ clock: { zzzz: 1 } }]"),
        ("ClockStep", "nodes: [{ clock: { steps: [{ zzzz: 1 }] } }]"),
        ("ProcessSpec", "nodes: [{ process: { zzzz: 1 } }]"),
        ("DockerSpec", "nodes: [{ docker: { zzzz: 1 } }]"),
        ("TcpSpec", "nodes: [{ tcp: { zzzz: 1 } }]"),
        ("RoundSpec", "rounds: [{ zzzz: 1 }]"),
    ] {
        assert_eq!(known_keys(file), of(name), "{name}");
    }
    let faults = schema["$defs"]["Fault"]["oneOf"].as_array().unwrap();
    assert_eq!(faults.len(), 5);
    for fault in faults {
        let kind = fault["properties"]["kind"]["const"].as_str().unwrap();
        let mut in_schema = keys(fault);
        in_schema.remove("kind");
        assert_eq!(
            known_keys(&format!("faults: [{{ kind: {kind}, zzzz: 1 }}]")),
            in_schema,
            "{kind}"
        );
    }
}

#[test]
fn every_scenario_that_is_shipped_is_valid() {
    let validator = validator();
    let mut seen = 0;
    for entry in fs::read_dir(root().join("scenarios")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let scenario: Value = serde_saphyr::from_str(&text).unwrap();
        let wrong: Vec<String> =
            validator.iter_errors(&scenario).map(|it| it.to_string()).collect();
        assert!(wrong.is_empty(), "{}: {wrong:?}", path.display());
        seen += 1;
    }
    assert!(seen >= 8, "{seen}");
    // And what is written out in full is.
    let whole = serde_json::to_value(sim::Scenario::default()).unwrap();
    assert!(validator.is_valid(&whole));
}

#[test]
fn what_the_reader_refuses_the_schema_refuses() {
    let validator = validator();
    let known = Known { classes: ["x86".to_owned()].into(), ..Known::default() };
    for wrong in [
        json!({ "nodez": [] }),
        json!({ "nodes": [{ "id": "a", "devise": "pi4" }] }),
        json!({ "nodes": [{ "id": "a", "type": "proplett" }] }),
        json!({ "simulation": { "until": "soon" } }),
        json!({ "simulation": { "until": -1 } }),
        json!({ "rounds": [{ "id": "r", "k_of_n": "many" }] }),
        json!({ "faults": [{ "kind": "crash", "node": "a" }] }),
        json!({ "faults": [{ "kind": "meteor", "at": 1 }] }),
        json!({ "assertions": [1] }),
    ] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
        assert!(read(&wrong.to_string(), &known).is_err(), "{wrong}");
    }
    for fine in [
        json!({ "simulation": { "until": "1.5 h", "quantum": 0.5 } }),
        json!({ "simulation": { "epoch": "2026-01-01T00:00:00Z" } }),
        json!({ "rounds": [{ "id": "r", "participants": { "sample": 3 }, "model": { "version": 2 } }] }),
        json!({ "nodes": [{ "id": "a", "availability": { "churn": { "mean_up": 1, "mean_down": "2s" } } }] }),
    ] {
        let wrong: Vec<String> = validator.iter_errors(&fine).map(|it| it.to_string()).collect();
        assert!(wrong.is_empty(), "{fine}: {wrong:?}");
        read(&fine.to_string(), &known).unwrap();
    }
}
