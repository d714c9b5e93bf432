//! The guest as a command: environment in, one JSON object or a complaint out.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    process::{Command, Output},
};

use serde_json::{Value, json};
use tempfile::TempDir;

const NOTE_MODEL: &str = r#"{"w":[0.0,0.0,0.0],"b":0.0,"version":0}"#;
const ROWS: &str = "1,0,0,1\n0,1,0,2\n0,0,1,3\n1,1,1,6\n1,1,0,3\n";

/// A device: its data directory, its base model, and the environment its proplet gives.
struct Device {
    dir: TempDir,
    vars: Vec<(&'static str, String)>,
}

impl Device {
    fn new(model: impl AsRef<[u8]>, files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        for (name, text) in files {
            fs::write(data.join(name), text).unwrap();
        }
        let base = dir.path().join("model.json");
        fs::write(&base, model).unwrap();
        let vars = vec![
            ("ROUND_ID", "r-1".to_owned()),
            ("MODEL_URI", "global_model_v0".to_owned()),
            ("PROPLET_ID", "proplet-1".to_owned()),
            ("MODEL_PATH", base.display().to_string()),
            ("DATA_DIR", data.display().to_string()),
            ("HYPERPARAMS", r#"{"model":"linear","lr":0.1,"epochs":3}"#.to_owned()),
        ];
        Self { dir, vars }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.vars.retain(|(known, _)| *known != name);
        self.vars.push((name, value.to_owned()));
        self
    }

    fn without(mut self, name: &'static str) -> Self {
        self.vars.retain(|(known, _)| *known != name);
        self
    }

    fn run(&self) -> Output {
        let vars = self.vars.iter().map(|(name, value)| (*name, value.as_str()));
        Command::new(env!("CARGO_BIN_EXE_client-wasm")).env_clear().envs(vars).output().unwrap()
    }

    fn update(&self) -> Value {
        let output = self.run();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn complaint(&self) -> String {
        let output = self.run();
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty(), "nothing is on stdout after a failure");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn an_update_is_one_json_object_with_the_names_and_shapes_of_its_base() {
    let update = Device::new(NOTE_MODEL, &[("rows.csv", ROWS)]).update();
    assert_eq!(update["round_id"], "r-1");
    assert_eq!(update["proplet_id"], "proplet-1");
    assert_eq!(update["base_model_uri"], "global_model_v0");
    assert_eq!(update["num_samples"], 4);
    let keys: Vec<&String> = update["update"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["b", "w"]);
    assert_eq!(update["update"]["w"].as_array().unwrap().len(), 3);
    assert!(update["update"]["b"].as_f64().unwrap() > 0.0);
    let metrics = update["metrics"].as_object().unwrap();
    assert!(metrics.values().all(Value::is_number));
    assert_eq!((&metrics["steps"], &metrics["holdout_samples"]), (&json!(3.0), &json!(1.0)));
    assert!(metrics["loss"].as_f64() < metrics["loss_before"].as_f64());
}

#[test]
fn an_evaluation_is_of_the_rows_that_training_left_out() {
    let trained = Device::new(NOTE_MODEL, &[("rows.csv", ROWS)]);
    let found = trained.with("PURPOSE", "evaluate").update();
    assert_eq!((&found["update"], &found["num_samples"]), (&json!({}), &json!(1)));
    // Of the zero model, whose one held-out row has a label of 1, 2, 3 or 6: half of its square.
    let loss = found["metrics"]["loss"].as_f64().unwrap();
    assert!([0.5, 2.0, 4.5, 18.0].contains(&loss), "{found}");

    let apart = [("rows.csv", ROWS), ("holdout.csv", "1,0,0,2\n0,0,0,0\n")];
    let device = Device::new(NOTE_MODEL, &apart);
    assert_eq!(device.update()["num_samples"], 4, "the rows that are held out are not trained on");
    let found = device.with("PURPOSE", "evaluate").update();
    assert_eq!((&found["num_samples"], &found["metrics"]["loss"]), (&json!(2), &json!(1.0)));
    let judge = Device::new(note_file(), &[("holdout.csv", "1,0,0,2\n0,0,0,0\n")]);
    assert_eq!(judge.with("PURPOSE", "evaluate").update(), found, "of a file, in text too");
}

#[test]
fn an_evaluation_of_nothing_is_an_error() {
    let device = Device::new(NOTE_MODEL, &[("rows.csv", "1,0,0,1\n")]).with("PURPOSE", "evaluate");
    let said = device.complaint();
    assert!(said.contains("0.2 of 1 rows") && said.contains("holdout.csv"), "{said}");
    let said = device.with("PURPOSE", "guess").complaint();
    assert!(said.contains("PURPOSE") && said.contains("guess"), "{said}");
}

#[test]
fn the_same_assignment_gives_the_same_bytes() {
    let device = Device::new(NOTE_MODEL, &[("rows.csv", ROWS)]);
    assert_eq!(device.run().stdout, device.run().stdout);
}

#[test]
fn all_csv_files_are_read_in_the_order_of_their_names() {
    let whole = Device::new(NOTE_MODEL, &[("a.csv", ROWS)]).update();
    let (head, tail) = ROWS.split_at("1,0,0,1\n0,1,0,2\n".len());
    let files = [("b.csv", tail), ("a.csv", head), ("notes.txt", "no,rows")];
    assert_eq!(Device::new(NOTE_MODEL, &files).update(), whole);
}

#[test]
fn the_proplet_may_fill_in_its_own_id() {
    let device = Device::new(NOTE_MODEL, &[("rows.csv", ROWS)]).without("PROPLET_ID");
    assert_eq!(device.update().get("proplet_id"), None);
}

#[test]
fn each_missing_variable_is_named() {
    for name in ["ROUND_ID", "MODEL_URI", "MODEL_PATH", "DATA_DIR"] {
        let said = Device::new(NOTE_MODEL, &[("rows.csv", ROWS)]).without(name).complaint();
        assert!(said.contains(&format!("no variable {name}")), "{said}");
    }
}

#[test]
fn no_data_is_an_error_never_a_substitute() {
    for files in [&[][..], &[("rows.csv", "")], &[("rows.csv", "\n\n")], &[("rows.txt", ROWS)]] {
        let said = Device::new(NOTE_MODEL, files).complaint();
        assert!(said.contains("no rows to train on"), "{said}");
    }
    let device = Device::new(NOTE_MODEL, &[]);
    let nowhere = device.dir.path().join("nowhere").display().to_string();
    let said = device.with("DATA_DIR", &nowhere).complaint();
    assert!(said.contains("cannot read") && said.contains("nowhere"), "{said}");
}

#[test]
fn what_is_wrong_is_named_with_its_value() {
    let device = || Device::new(NOTE_MODEL, &[("rows.csv", ROWS)]);
    let said = device().with("HYPERPARAMS", r#"{"lr":"fast"}"#).complaint();
    assert!(said.contains(r#""lr" takes a number above 0, not "fast""#), "{said}");
    let said = device().with("HYPERPARAMS", "{}").complaint();
    assert!(said.contains("b [], w [3]") && said.contains("w [features, classes]"), "{said}");
    let said = device().with("MODEL_PATH", "absent.json").complaint();
    assert!(said.contains("cannot read absent.json"), "{said}");
    let bad_row = [("rows.csv", ROWS), ("worse.csv", "1,0,0,1\n1,2,3\n")];
    let said = Device::new(NOTE_MODEL, &bad_row).complaint();
    assert!(said.contains("worse.csv, line 2: 3 fields"), "{said}");
}

/// The note's model as a file: `b`, then `w`, of `F32`.
fn note_file() -> Vec<u8> {
    let header = r#"{"__metadata__":{"version":"0"},"b":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[3],"data_offsets":[4,16]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend([0; 16]);
    file
}

#[test]
fn an_update_to_a_file_is_a_file_of_the_same_types() {
    let device = Device::new(note_file(), &[("rows.csv", ROWS)]);
    let path = device.dir.path().join("update");
    let device = device.with("UPDATE_PATH", &path.display().to_string());
    let output = device.run();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty());
    let file = fs::read(path).unwrap();
    let header_len = usize::try_from(u64::from_le_bytes(*file.first_chunk().unwrap())).unwrap();
    let (header, data) = file[8..].split_at(header_len);
    let header: Value = serde_json::from_slice(header).unwrap();
    let said = &header["__metadata__"];
    assert_eq!((&said["num_samples"], &said["round_id"]), (&json!("4"), &json!("r-1")));
    assert_eq!(
        (&said["proplet_id"], &said["base_model_uri"]),
        (&json!("proplet-1"), &json!("global_model_v0"))
    );
    assert!(
        serde_json::from_str::<Value>(said["metrics"].as_str().unwrap()).unwrap()["loss"].is_f64()
    );
    assert_eq!(header["w"], json!({"dtype": "F32", "shape": [3], "data_offsets": [4, 16]}));
    let numbers: Vec<f32> = data.as_chunks().0.iter().map(|it| f32::from_le_bytes(*it)).collect();
    let text = Device::new(NOTE_MODEL, &[("rows.csv", ROWS)]).update();
    let exact = |value: &Value| value.as_f64().unwrap() as f32;
    let mut expected = vec![exact(&text["update"]["b"])];
    expected.extend(text["update"]["w"].as_array().unwrap().iter().map(exact));
    assert_eq!(numbers, expected, "the training is the same, rounded once");
}

#[test]
fn a_file_that_cannot_be_trained_or_answered_is_refused() {
    let said = Device::new(note_file(), &[("rows.csv", ROWS)]).complaint();
    assert!(said.contains("no variable UPDATE_PATH"), "{said}");
    let said = Device::new(&note_file()[..40], &[("rows.csv", ROWS)]).complaint();
    assert!(said.contains("its header does not end"), "{said}");
}
