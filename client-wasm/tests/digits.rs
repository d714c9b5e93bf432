//! Training on the real digits: that it learns, repeats, and never trains on what is held out.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs::File, io::BufReader, path::Path};

use client_wasm::{Dataset, Hyperparams, Kind, Model, evaluate, initial_model, train};
use flate2::read::GzDecoder;

const FEATURES: usize = 64;
const CLASSES: usize = 10;

#[test]
fn softmax_regression_learns_the_digits() {
    let (model, holdout) = learn(r#"{"epochs":30,"lr":0.5,"batch_size":32,"seed":1}"#);
    assert!(holdout > 0.94, "accuracy on the held-out part is {holdout}");
    let all = evaluate(&model, &digits(), 16.0).unwrap();
    assert!(all.accuracy.unwrap() > 0.96, "accuracy on all rows is {all:?}");
}

#[test]
fn the_mlp_learns_the_digits_better() {
    let (_, holdout) =
        learn(r#"{"model":"mlp","epochs":30,"lr":0.1,"batch_size":32,"seed":1,"l2":1e-4}"#);
    assert!(holdout > 0.96, "accuracy on the held-out part is {holdout}");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let step = |json: &str, stream| {
        let hyperparams = Hyperparams::from_json(json).unwrap();
        let mut model = model_0(hyperparams.kind);
        let report = train(&mut model, &digits(), &hyperparams, stream).unwrap();
        (model.to_json(1).unwrap(), report)
    };
    let (first, report) = step(r#"{"seed":5}"#, 0);
    assert_eq!((first.clone(), report.clone()), step(r#"{"seed":5}"#, 0));
    assert_ne!(first, step(r#"{"seed":6}"#, 0).0);
    let (other, other_report) = step(r#"{"seed":5}"#, 1);
    assert_ne!(first, other, "another stream, another order of the rows");
    assert_eq!(report.before, other_report.before, "but the same split");
}

/// The held-out rows are given labels that contradict all others; training must not notice.
#[test]
fn held_out_rows_are_never_trained_on() {
    let hyperparams = Hyperparams::from_json(r#"{"epochs":2,"holdout":0.5,"seed":3}"#).unwrap();
    let rows: Vec<String> = (0..40).map(|row| format!("{row}.5,1,{}", row % 2)).collect();
    let run = |lines: &[String]| {
        let mut data = Dataset::default();
        data.append("rows", lines.join("\n").as_bytes()).unwrap();
        let mut model = initial_model(Kind::Softmax, 2, 2, 0).unwrap();
        let report = train(&mut model, &data, &hyperparams, 0).unwrap();
        (model, report)
    };
    let (model, report) = run(&rows);
    assert_eq!((report.num_samples, report.holdout_samples), (20, 20));
    let unnoticed = (0..rows.len())
        .filter(|row| {
            let mut changed = rows.clone();
            changed[*row] = format!("9999,1,{}", (row + 1) % 2);
            run(&changed).0 == model
        })
        .count();
    assert_eq!(unnoticed, 20, "exactly the held-out rows leave the weights as they are");
}

/// FedProx: the stronger the pull, the nearer the model stays to where it started.
#[test]
fn a_pull_keeps_the_model_near_its_base() {
    let base = model_0(Kind::Softmax);
    let distance = |mu: &str| {
        let text = format!(r#"{{"epochs":3,"lr":0.1,"mu":{mu}}}"#);
        let mut model = base.clone();
        train(&mut model, &digits(), &Hyperparams::from_json(&text).unwrap(), 0).unwrap();
        let squared = |(w, from): (&f64, &f64)| (w - from) * (w - from);
        model.parameters().iter().zip(base.parameters()).map(squared).sum::<f64>().sqrt()
    };
    let (free, held, bound) = (distance("0"), distance("0.1"), distance("5"));
    assert!(held < 0.9 * free && bound < 0.3 * free, "{free} {held} {bound}");
    assert!(bound > 0.0);
}

#[test]
fn too_large_a_step_is_reported_as_divergence() {
    let hyperparams =
        Hyperparams::from_json(r#"{"model":"linear","lr":1e6,"epochs":50,"holdout":0}"#).unwrap();
    let mut data = Dataset::default();
    data.append("rows", "1,2,3,4\n5,6,7,8\n".as_bytes()).unwrap();
    let mut model = initial_model(Kind::Linear, 3, 1, 0).unwrap();
    let said = train(&mut model, &data, &hyperparams, 0).unwrap_err().to_string();
    assert!(said.contains("diverged") && said.contains("1000000"), "{said}");
}

/// `y = 2a - b + 3`, without noise, is found to 1e-6.
#[test]
fn least_squares_finds_the_plane() {
    let hyperparams =
        Hyperparams::from_json(r#"{"model":"linear","lr":0.5,"epochs":1000,"holdout":0.25}"#)
            .unwrap();
    let mut data = Dataset::default();
    for step in 0..40_u32 {
        let (a, b) = (f64::from(step % 7) / 7.0, f64::from(step % 5) / 5.0);
        data.append("plane", format!("{a},{b},{}", 2.0 * a - b + 3.0).as_bytes()).unwrap();
    }
    let mut model = initial_model(Kind::Linear, 2, 1, 0).unwrap();
    let report = train(&mut model, &data, &hyperparams, 0).unwrap();
    for (found, wanted) in model.parameters().iter().zip([2.0, -1.0, 3.0]) {
        assert!((found - wanted).abs() < 1e-6, "{found} is not {wanted}");
    }
    assert_eq!((report.num_samples, report.holdout_samples), (30, 10));
    assert!(report.holdout.unwrap().loss < 1e-12);
    assert_eq!(report.holdout.unwrap().accuracy, None);
}

fn learn(json: &str) -> (Model, f64) {
    let hyperparams = Hyperparams::from_json(json).unwrap();
    let mut model = model_0(hyperparams.kind);
    let report = train(&mut model, &digits(), &hyperparams, 0).unwrap();
    assert_eq!((report.num_samples, report.holdout_samples), (1438, 359));
    assert_eq!(report.steps, hyperparams.epochs * 45);
    assert!(report.after.loss < report.before.loss / 4.0, "{report:?}");
    (model, report.holdout.unwrap().accuracy.unwrap())
}

fn model_0(kind: Kind) -> Model {
    initial_model(kind, FEATURES, CLASSES, 1).unwrap()
}

fn digits() -> Dataset {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/digits.csv.gz");
    let mut data = Dataset::default();
    let reader = BufReader::new(GzDecoder::new(File::open(path).unwrap()));
    data.append("digits.csv", reader).unwrap();
    assert_eq!((data.len(), data.features()), (1797, FEATURES));
    data
}
