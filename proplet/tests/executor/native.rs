//! The built-in client inside and outside of the sandbox: the same bits, and at which price.

use std::{fs, path::Path};

use client_wasm::{Answer, Assignment, Hyperparams, initial_model, read_tokens, run, tokens_of};
use proplet::executor::{Job, Limits, Model, Outcome, Program};
use protocol::Timestamp;
use service::{Clock as _, SystemClock};

use crate::device::{Device, job};

const WINDOW: usize = 12;

/// A training step, and the rows it is for.
struct Case {
    hyperparams: String,
    rows: String,
    features: usize,
    classes: usize,
}

/// Every network.
fn cases(epochs: u64) -> Vec<Case> {
    let tales = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/tales.txt");
    let tokens = read_tokens(&fs::read_to_string(tales).unwrap(), WINDOW, 40).unwrap();
    let image = |row: usize| {
        let pixel = |at: usize| ((row * 7 + at * 13 + row * at) % 17).to_string();
        let pixels: Vec<String> = (0..64).map(pixel).collect();
        format!("{},{}\n", pixels.join(","), row % 10)
    };
    let images: String = (0..600).map(image).collect();
    let case = |model: &str, rows: &String, features, classes| Case {
        hyperparams: format!(
            r#"{{"model":"{model}","epochs":{},"lr":0.05,"l2":0.001}}"#,
            // These take much longer than the others.
            if ["cnn", "gru"].contains(&model) { epochs.div_ceil(20) } else { epochs }
        ),
        rows: rows.clone(),
        features,
        classes,
    };
    vec![
        case("linear", &"1,2,3.5\n0.1,4,5\n2,2,1\n".to_owned(), 2, 1),
        case("softmax", &images, 64, 10),
        case("mlp", &images, 64, 10),
        case("cnn", &images, 64, 10),
        case("bigram", &tokens, WINDOW, tokens_of()),
        case("gru", &tokens, WINDOW, tokens_of()),
    ]
}

impl Case {
    fn model(&self) -> String {
        let kind = Hyperparams::from_json(&self.hyperparams).unwrap().kind;
        initial_model(kind, self.features, self.classes, 1).unwrap().to_json(0).unwrap()
    }

    /// The update, and how long it took.
    fn natively(&self, device: &Device) -> (String, f64) {
        let model = device.path("base.json");
        fs::write(&model, self.model()).unwrap();
        let asked = Assignment::from_vars(|name| match name {
            "MODEL_PATH" => Some(model.display().to_string()),
            "DATA_DIR" => Some(device.path("data").display().to_string()),
            _ => self.vars().into_iter().find(|(known, _)| *known == name).map(|(_, value)| value),
        });
        let began = SystemClock.now();
        let answer = run(&asked.unwrap()).unwrap();
        let took = ms_since(began);
        let Answer::Json(text) = answer else { panic!("a model of JSON has an update of JSON") };
        (text, took)
    }

    async fn sandboxed(&self, device: &Device) -> (String, f64) {
        let vars = self.vars().into_iter().map(|(name, value)| (name.to_owned(), value));
        let job = Job {
            env: vars.collect(),
            model: Some(Model::Bytes(self.model().into())),
            variates: None,
            data_dir: Some(device.path("data")),
            limits: Limits::default(),
            ..job(&Program::builtin(), &[])
        };
        let Outcome { end, metrics, stderr_tail } = device.run(job).await;
        let output = end.unwrap_or_else(|why| panic!("{why}: {stderr_tail}"));
        let text = String::from_utf8(output.stdout).unwrap();
        (text.trim_end().to_owned(), metrics.wall_us as f64 / 1e3)
    }

    fn vars(&self) -> Vec<(&'static str, String)> {
        vec![
            ("ROUND_ID", "r-1".to_owned()),
            ("MODEL_URI", "some/model".to_owned()),
            ("HYPERPARAMS", self.hyperparams.clone()),
        ]
    }
}

fn ms_since(began: Timestamp) -> f64 {
    SystemClock.now().since(began).as_secs_f64() * 1e3
}

fn device(case: &Case) -> Device {
    let device = Device::wasm();
    fs::write(device.path("data/train.csv"), &case.rows).unwrap();
    // A link that leads out of the directory is for other tests.
    let _ = fs::remove_file(device.path("data/link"));
    device
}

#[tokio::test]
async fn a_step_gives_the_same_bits_inside_and_outside_of_the_sandbox() {
    for case in cases(2) {
        let device = device(&case);
        let (native, _) = case.natively(&device);
        let (sandboxed, _) = case.sandboxed(&device).await;
        assert!(native == sandboxed, "{}:\n{native}\n{sandboxed}", case.hyperparams);
    }
}

/// Prints the price of the sandbox; see docs/BENCHMARKS.md.
#[tokio::test]
#[ignore = "measures, and asserts nothing that depends on the machine"]
async fn what_a_step_costs_inside_and_outside_of_the_sandbox() {
    for case in cases(200) {
        let device = device(&case);
        case.sandboxed(&device).await;
        let (mut native, mut sandboxed) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..5 {
            native = native.min(case.natively(&device).1);
            sandboxed = sandboxed.min(case.sandboxed(&device).await.1);
        }
        eprintln!(
            "{}: native {native:.1} ms, sandboxed {sandboxed:.1} ms, ratio {:.2}",
            case.hyperparams,
            sandboxed / native
        );
    }
}
