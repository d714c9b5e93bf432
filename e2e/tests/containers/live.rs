//! One scenario under virtual time, and the same on Mosquitto with every service a process and one proplet in a
//! container: the same models bit for bit, and rounds that take the time that was predicted.
//!
//! Same data, hyperparameters and model 0. The devices of the scenario are calibrated by the first live rounds: the
//! fuel that a proplet's training burns in virtual time over the wall time that it took. Later rounds are predicted.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use e2e::{BrokerKind, Command, Dice, Operator, Process, Stack, StackPlan, Turn, aileron, say};
use protocol::message::RoundComplete;
use serde_json::{Value, json};

use crate::{engine::Engine, sim, told};

const IMAGE: &str = "aileron-e2e-program:here";
const ROUNDS: u64 = 7;
/// The first round compiles the guest; the next ones calibrate, the others are predicted.
const CALIBRATED_BY: std::ops::RangeInclusive<u64> = 2..=4;
/// How many rows each proplet has; the last one is in the container.
const ROWS: [u64; 2] = [6_000, 5_000];
/// How far a measured round may be from the prediction.
const TOLERANCE: f64 = 0.1;

#[test]
fn a_platform_and_its_simulation_make_the_same_models() {
    let Some(told) = Told::by_both(50) else { return };
    told.show();
}

/// What depends on the machine: `cargo test -p e2e --test containers -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement: it wants a quiet machine"]
fn rounds_take_the_time_that_was_predicted() {
    let Some(told) = Told::by_both(4_000) else { return };
    told.show();
    let (predicted, measured) = (median(&told.predicted_ms), median(&told.measured_ms));
    let part = measured / predicted - 1.0;
    assert!(part.abs() <= TOLERANCE, "{measured} ms, predicted {predicted} ms");
}

/// What both runs said of the rounds that are predicted.
struct Told {
    predicted_ms: Vec<f64>,
    measured_ms: Vec<f64>,
}

impl Told {
    fn by_both(epochs: u64) -> Option<Self> {
        let _turn = Turn::take();
        let engine = Engine::find()?;
        let dir = tempfile::tempdir().unwrap();
        let hyperparams = json!({"model": "linear", "epochs": epochs, "lr": 0.01, "batch_size": 16, "holdout": 0.0});
        data(dir.path());
        let live = Live::run(dir.path(), &engine, &hyperparams);
        let file = dir.path().join("scenario.yaml");
        // What is burned does not depend on the device: so it is found out on any.
        fs::write(&file, scenario(&hyperparams, &[1_000.0; ROWS.len()])).unwrap();
        let rates = rates(&fuel(dir.path()), &live.wall_ms);
        fs::write(&file, scenario(&hyperparams, &rates)).unwrap();
        let virtually = Virtual::run(dir.path());
        for (version, model) in &live.models {
            assert!(
                virtually.said(model),
                "model {version} differs: {}",
                String::from_utf8_lossy(model)
            );
        }
        let mut said = Self { predicted_ms: vec![], measured_ms: vec![] };
        for round in 1..=ROUNDS {
            let (lived, predicted) = (&live.rounds[&round], virtually.round(round));
            assert_eq!(facts(lived), facts(&predicted));
            if round > *CALIBRATED_BY.end() {
                said.predicted_ms.push(predicted.duration_ms as f64);
                said.measured_ms.push(lived.duration_ms as f64);
            }
        }
        Some(said)
    }

    fn show(&self) {
        let (predicted, measured) = (median(&self.predicted_ms), median(&self.measured_ms));
        say(&format!(
            "rounds predicted {:?} ms, measured {:?} ms: {:+.1} %",
            self.predicted_ms,
            self.measured_ms,
            100.0 * (measured / predicted - 1.0)
        ));
    }
}

/// The outcome of a round, without what tells the time.
fn facts(complete: &RoundComplete) -> Value {
    let mut facts = serde_json::to_value(complete).unwrap();
    for key in ["completed_at", "duration_ms"] {
        facts.as_object_mut().unwrap().remove(key).unwrap();
    }
    facts
}

/// Rows of a plane with noise, a part for each proplet.
fn data(dir: &Path) {
    let mut dice = Dice::of_story("live");
    for (proplet, rows) in ROWS.iter().enumerate() {
        let mut text = String::new();
        for _ in 0..*rows {
            let mut draw = || dice.below(2_000_001) as f64 / 1e6 - 1.0;
            let (x, noise) = ([draw(), draw(), draw()], draw());
            let y = 0.5 * x[0] - 1.5 * x[1] + 2.0 * x[2] + 0.25 + 0.1 * noise;
            writeln!(text, "{:.6},{:.6},{:.6},{y:.6}", x[0], x[1], x[2]).unwrap();
        }
        let part = dir.join(format!("part-{proplet}"));
        fs::create_dir(&part).unwrap();
        fs::write(part.join("train.csv"), text).unwrap();
    }
}

fn scenario(hyperparams: &Value, fuel_per_us: &[f64]) -> String {
    let (mut devices, mut nodes) = (String::new(), String::new());
    for (proplet, rate) in fuel_per_us.iter().enumerate() {
        writeln!(devices, "  here-{proplet}: {{ fuel_per_us: {rate}, start_us: 300 }}").unwrap();
        writeln!(
            nodes,
            "  - {{ id: proplet-{proplet}, device: here-{proplet}, fidelity: wasm, data: part-{proplet} }}"
        )
        .unwrap();
    }
    format!(
        "name: live\nsimulation: {{ seed: 1, until: 10min }}\n\
         network: {{ model: latency, default: {{ latency_us: 500 }} }}\n\
         devices:\n{devices}nodes:\n{nodes}\
         rounds:\n  - {{ id: round, repeat: {ROUNDS}, timeout: 60s, hyperparams: {hyperparams} }}\n\
         assertions: [rounds_complete == {ROUNDS}]\n"
    )
}

/// What each proplet burns in a round, by the trace of a run.
fn fuel(dir: &Path) -> Vec<f64> {
    told(sim(dir, None).args(["run", "scenario.yaml", "--trace", "fuel.ndjson"]));
    let text = fs::read_to_string(dir.join("fuel.ndjson")).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |proplet: usize| {
        let name = format!("proplet-{proplet}");
        let ends = events
            .iter()
            .filter(|event| event["kind"] == "task_end" && event["source"] == name.as_str());
        median(&ends.map(|event| event["detail"]["fuel"].as_f64().unwrap()).collect::<Vec<_>>())
    };
    (0..ROWS.len()).map(of).collect()
}

/// Fuel a microsecond of each proplet, by what it took live.
fn rates(fuel: &[f64], wall_ms: &BTreeMap<(u64, usize), f64>) -> Vec<f64> {
    let took = |proplet: usize| {
        median(&CALIBRATED_BY.map(|round| wall_ms[&(round, proplet)]).collect::<Vec<_>>())
    };
    fuel.iter().enumerate().map(|(proplet, fuel)| fuel / (took(proplet) * 1e3)).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// What came of the live run.
struct Live {
    rounds: BTreeMap<u64, RoundComplete>,
    /// As they were retained at the broker.
    models: BTreeMap<u64, Vec<u8>>,
    /// Wall time of the guest, by round and proplet.
    wall_ms: BTreeMap<(u64, usize), f64>,
}

impl Live {
    fn run(dir: &Path, engine: &Engine, hyperparams: &Value) -> Self {
        let stack = StackPlan::new(BrokerKind::Mosquitto, 0).start();
        let operator = stack.operator();
        let (_boxed, _others) = proplets(dir, engine, &stack);
        stack.http.wait_for_alive(ROWS.len());
        let mut live =
            Self { rounds: BTreeMap::new(), models: BTreeMap::new(), wall_ms: BTreeMap::new() };
        for round in 1..=ROUNDS {
            live.rounds.insert(round, ask(&operator, round, hyperparams));
        }
        for version in 0..=ROUNDS {
            let model = operator.peer().wait_for(&format!("fl/models/global_model_v{version}"));
            live.models.insert(version, model.payload);
        }
        for round in CALIBRATED_BY {
            for proplet in 0..ROWS.len() {
                live.wall_ms.insert((round, proplet), wall_ms(&stack, round, proplet));
            }
        }
        live
    }
}

fn ask(operator: &Operator, round: u64, hyperparams: &Value) -> RoundComplete {
    let names: Vec<String> = (0..ROWS.len()).map(|proplet| format!("proplet-{proplet}")).collect();
    let start = json!({
        "round_id": format!("round-{round}"), "model_uri": format!("fl/models/global_model_v{}", round - 1),
        "participants": names, "hyperparams": hyperparams, "k_of_n": ROWS.len(), "timeout_s": 60,
    });
    operator.peer().publish("fl/rounds/start", start.to_string());
    operator.wait_for_complete(&format!("round-{round}"))
}

/// What the manager has heard of a proplet's part of a round.
fn wall_ms(stack: &Stack, round: u64, proplet: usize) -> f64 {
    let name = format!("fl-round-round-{round}-proplet-{proplet}");
    let task = stack.http.get(&format!("/tasks?name={name}")).body["tasks"][0].clone();
    assert_eq!(task["name"], name, "{task}");
    let id = task["id"].as_str().unwrap();
    e2e::eventually(&format!("{name} has metrics"), || {
        stack.http.get(&format!("/tasks/{id}/metrics")).body["metrics"][0]["wall_ms"].as_f64()
    })
}

/// All but the last as processes, the last one in a container.
fn proplets<'a>(dir: &Path, engine: &'a Engine, stack: &Stack) -> (Boxed<'a>, Vec<Process>) {
    let settings = |proplet: usize| {
        vec![
            ("PROPLET_ID".to_owned(), format!("proplet-{proplet}")),
            ("PROPLET_MQTT_ADDRESS".to_owned(), stack.field().address()),
            (
                "PROPLET_STATE_DIR".to_owned(),
                dir.join(format!("state-{proplet}")).display().to_string(),
            ),
            (
                "PROPLET_DATA_DIR".to_owned(),
                dir.join(format!("part-{proplet}")).display().to_string(),
            ),
        ]
    };
    let last = ROWS.len() - 1;
    let boxed = Boxed::start(engine, dir, &settings(last));
    let start = |proplet: usize| {
        let name = format!("proplet-{proplet}");
        Command::service(&stack.dir(), &name, "proplet", &settings(proplet)).start()
    };
    (boxed, (0..last).map(start).collect())
}

/// A proplet in a container, from an image with the program, its libraries and nothing else.
struct Boxed<'a> {
    engine: &'a Engine,
    id: String,
}

impl<'a> Boxed<'a> {
    fn start(engine: &'a Engine, dir: &Path, settings: &[(String, String)]) -> Self {
        let program = fs::canonicalize(aileron()).unwrap();
        engine.import_program(IMAGE, &program);
        let volume = format!("{0}:{0}", dir.display());
        let mut words = vec!["run", "--detach", "--network", "host", "--volume", &volume];
        let settings: Vec<String> =
            settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        words.extend(settings.iter().flat_map(|setting| ["--env", setting]));
        let program = program.display().to_string();
        words.extend([IMAGE, &program, "proplet"]);
        Self { engine, id: engine.docker(&words) }
    }
}

impl Drop for Boxed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&self.engine.docker(&["logs", "--tail", "30", &self.id]));
        }
        self.engine.docker(&["rm", "--force", &self.id]);
    }
}

/// What came of the run under virtual time: every message of it, as a packet capture.
struct Virtual {
    capture: Vec<u8>,
}

impl Virtual {
    fn run(dir: &Path) -> Self {
        let path: PathBuf = dir.join("run.pcap");
        told(sim(dir, None).args(["run", "scenario.yaml", "--trace", "run.pcap"]));
        Self { capture: fs::read(path).unwrap() }
    }

    /// Whether a message had these bytes.
    fn said(&self, payload: &[u8]) -> bool {
        self.capture.windows(payload.len()).any(|window| window == payload)
    }

    fn round(&self, round: u64) -> RoundComplete {
        let head = format!("{{\"round_id\":\"round-{round}\",\"model_version\"");
        let at = self.capture.windows(head.len()).position(|window| window == head.as_bytes());
        let rest = &self.capture[at.unwrap_or_else(|| panic!("round {round} did not end"))..];
        serde_json::Deserializer::from_slice(rest).into_iter().next().unwrap().unwrap()
    }
}
