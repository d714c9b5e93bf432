//! Every network learns as a federation does: five devices with parts that differ, averaged.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, fs, fs::File, io::Read as _, path::PathBuf};

use client_wasm::{
    Dataset, Hyperparams, Model, Tensor, evaluate, initial_model, read_tokens, tokens_of, train,
};
use flate2::read::GzDecoder;

const DEVICES: usize = 5;

/// Model, rounds, and the part of the first loss that may be left.
#[test]
fn networks_on_images_learn_from_five_parts() {
    for (hyperparams, rounds, left) in [
        (r#"{"model":"mlp","lr":0.1,"epochs":2,"holdout":0}"#, 5, 0.4),
        (r#"{"model":"cnn","lr":0.1,"epochs":2,"holdout":0}"#, 5, 0.4),
    ] {
        federate(&digits(), hyperparams, (64, 10), (rounds, left));
    }
}

#[test]
fn models_of_characters_learn_from_five_tellers() {
    for (hyperparams, rounds, left) in [
        (r#"{"model":"bigram","lr":2,"epochs":2,"holdout":0}"#, 5, 0.75),
        (r#"{"model":"gru","lr":0.5,"epochs":1,"holdout":0}"#, 6, 0.65),
    ] {
        federate(&tales(), hyperparams, (WINDOW, tokens_of()), (rounds, left));
    }
}

/// The GRU sees more than the last character, and has to make something of it.
#[test]
fn what_came_before_the_last_character_helps() {
    let parts = tales();
    let bigram = r#"{"model":"bigram","lr":2,"epochs":1,"holdout":0}"#;
    let bigram = federate(&parts, bigram, (WINDOW, tokens_of()), (12, 1.0));
    let gru = r#"{"model":"gru","lr":0.5,"epochs":1,"holdout":0}"#;
    let gru = federate(&parts, gru, (WINDOW, tokens_of()), (12, 1.0));
    assert!(gru > bigram + 0.05, "next characters that are right: GRU {gru}, bigram {bigram}");
}

/// Gives the accuracy on all parts in the end.
fn federate(
    parts: &[String],
    hyperparams: &str,
    (features, classes): (usize, usize),
    (rounds, left): (u64, f64),
) -> f64 {
    let set = Hyperparams::from_json(hyperparams).unwrap();
    let data = |text: &str| {
        let mut data = Dataset::default();
        data.append("part", text.as_bytes()).unwrap();
        data
    };
    let all = data(&parts.concat());
    let parts: Vec<Dataset> = parts.iter().map(|part| data(part)).collect();
    let mut model = initial_model(set.kind, features, classes, 1).unwrap();
    let before = evaluate(&model, &all, set.scale).unwrap().loss;
    for round in 0..rounds {
        let mut updates = vec![];
        for part in &parts {
            let mut update = model.clone();
            let report = train(&mut update, part, &set, round).unwrap();
            updates.push((report.num_samples as f64, update));
        }
        model = average(&set, features, &updates);
    }
    let after = evaluate(&model, &all, set.scale).unwrap();
    assert!(after.loss < left * before, "{}: {before} -> {after:?}", set.kind);
    after.accuracy.unwrap()
}

/// `sum(n_i * w_i) / sum(n_i)`, tensor by tensor, through the JSON of a model.
fn average(set: &Hyperparams, features: usize, updates: &[(f64, Model)]) -> Model {
    let total: f64 = updates.iter().map(|(weight, _)| weight).sum();
    let mut sums: BTreeMap<&str, Tensor> = BTreeMap::new();
    for (weight, model) in updates {
        for (name, tensor) in model.tensors() {
            let sum = sums.entry(name).or_insert_with(|| Tensor {
                shape: tensor.shape.clone(),
                values: vec![0.0; tensor.values.len()],
            });
            for (sum, value) in sum.values.iter_mut().zip(&tensor.values) {
                *sum += weight / total * value;
            }
        }
    }
    Model::from_json(&serde_json::to_string(&sums).unwrap(), set.kind, features).unwrap()
}

const WINDOW: usize = 12;

/// A part is what one teller tells.
fn tales() -> Vec<String> {
    let text = fs::read_to_string(data("tales.txt")).unwrap();
    let parts: Vec<_> =
        text.split("\n\n").map(|tale| read_tokens(tale, WINDOW, 4).unwrap()).collect();
    assert_eq!(parts.len(), DEVICES);
    parts
}

/// A part has two of the labels in plenty, and a few rows of the others.
fn digits() -> Vec<String> {
    let mut text = String::new();
    GzDecoder::new(File::open(data("digits.csv.gz")).unwrap()).read_to_string(&mut text).unwrap();
    let mut parts = vec![String::new(); DEVICES];
    for (row, line) in text.lines().enumerate() {
        let label: f64 = line.rsplit(',').next().unwrap().parse().unwrap();
        let own = (label as usize) / 2;
        let part = if row % 3 == 0 { row % DEVICES } else { own };
        parts[part].extend([line, "\n"]);
    }
    parts
}

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data").join(name)
}
