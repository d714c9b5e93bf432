//! What an update weighs on the wire between a proplet and Mosquitto: all bytes of MQTT, counted.

use std::{fs, path::Path};

use e2e::{BrokerKind, Dice, Exchange, RoundPlan, StackPlan, Tap, Turn, Way, eventually, say};
use protocol::{DType, Slot, Tensor, Tensors, tensor::safetensors};
use serde_json::{Value, json};

/// All four: the update and its acknowledgement, the verdict and its own.
const PLAIN_BYTES_MAX: u64 = 4_520;
const F32_BYTES_MAX: u64 = 4500;
const INT8_BYTES_MAX: u64 = 1300;
const PARAMETERS: usize = 1000;
const ROWS: usize = 60;

/// A model of a thousand `f32`, and how the built-in client is told of it.
struct Case {
    tensors: &'static [(&'static str, &'static [usize])],
    features: usize,
    hyperparams: Value,
}

fn softmax() -> Case {
    let hyperparams = json!({"epochs": 2, "lr": 0.05, "batch_size": 8, "scale": 1, "holdout": 0});
    Case { tensors: &[("b", &[10]), ("w", &[99, 10])], features: 99, hyperparams }
}

fn perceptron() -> Case {
    let tensors: &[(&str, &[usize])] =
        &[("b1", &[30]), ("b2", &[10]), ("w1", &[22, 30]), ("w2", &[30, 10])];
    let hyperparams = json!({
        "model": "mlp", "hidden": 30, "epochs": 2, "lr": 0.05, "batch_size": 8, "scale": 1, "holdout": 0,
    });
    Case { tensors, features: 22, hyperparams }
}

#[test]
fn a_thousand_f32_take_four_and_a_half_kilobytes_and_a_thousand_int8_one_point_three() {
    let all = weigh(&softmax(), &[None, Some("delta+int8+deflate")]);
    assert!(all[0] <= PLAIN_BYTES_MAX, "as they are: {all:?}");
    assert!(all[1] <= INT8_BYTES_MAX, "int8: {all:?}");
}

#[test]
fn in_four_tensors_they_take_no_more_where_they_are_deflated() {
    let all = weigh(&perceptron(), &[Some("deflate"), Some("delta+int8+deflate")]);
    assert!(all[0] <= F32_BYTES_MAX, "deflate, which loses nothing: {all:?}");
    assert!(all[1] <= INT8_BYTES_MAX, "int8: {all:?}");
}

/// Bytes of one proplet's update in each encoding, from it to the broker and back.
#[track_caller]
fn weigh(case: &Case, encodings: &[Option<&str>]) -> Vec<u64> {
    let _turn = Turn::take();
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice::of_story("wire");
    let model = dir.path().join("model-0.safetensors");
    fs::write(&model, model_0(case, &mut dice)).unwrap();
    let data = dir.path().join("data");
    write_rows(&data, case.features, &mut dice);
    let tap = Tap::open();
    let plan = StackPlan::new(BrokerKind::Mosquitto, 1)
        .with("MODEL_SERVER_MODEL_FILE", model.display())
        .with("PROPLET_DATA_DIR", data.display())
        .with("PROPLET_MQTT_ADDRESS", tap.address());
    let stack = plan.start();
    tap.lead_to(stack.field().port());
    let operator = stack.operator();
    let rounds = encodings.iter().zip(0..).map(|(encoding, base)| {
        // As long as the round ids that a clock makes.
        let id = format!("r-{}", 1_768_464_194 + base);
        let mut round = RoundPlan::one_hot(&plan.fleet, &id, base);
        round.file = None;
        round.hyperparams = case.hyperparams.clone();
        round.encoding = encoding.map(str::to_owned);
        operator.run(&round);
        let said = |way, kind| {
            let topic = format!("fl/rounds/{id}/{kind}/proplet-1");
            eventually(&format!("{topic} is acknowledged"), || {
                tap.exchanges(way, &topic).filter(|all| !all.is_empty())
            })
        };
        let (update, verdict) = (said(Way::ToBroker, "updates"), said(Way::ToService, "acks"));
        let sum = |all: &[Exchange]| -> u64 {
            all.iter().map(|it| it.message_bytes + it.ack_bytes).sum()
        };
        let bytes = sum(&update) + sum(&verdict);
        say(&format!("{encoding:?}: update {update:?}, verdict {verdict:?}, together {bytes}"));
        bytes
    });
    rounds.collect()
}

fn model_0(case: &Case, dice: &mut Dice) -> Vec<u8> {
    let mut number = || dice.below(1 << 20) as f64 / f64::from(1 << 20) * 0.4 - 0.2;
    let tensor = |(name, shape): &(&str, &[usize])| {
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| number()).collect();
        let slot = Slot { dtype: DType::F32, shape: shape.to_vec() };
        ((*name).to_owned(), Tensor::rounded(slot, &values).unwrap())
    };
    let tensors: Tensors = case.tensors.iter().map(tensor).collect();
    assert_eq!(tensors.schema().parameters(), PARAMETERS);
    safetensors::write(&tensors, &safetensors::Metadata::new()).to_vec()
}

/// Rows of random features, each of a random class.
fn write_rows(dir: &Path, features: usize, dice: &mut Dice) {
    fs::create_dir(dir).unwrap();
    let mut text = String::new();
    for _ in 0..ROWS {
        for _ in 0..features {
            text.push_str(&format!("0.{:04},", dice.below(10_000)));
        }
        text.push_str(&format!("{}\n", dice.below(10)));
    }
    fs::write(dir.join("rows.csv"), text).unwrap();
}
