//! A session that looks at its models on the way: by the fleet and in the centre, killed at while it
//! does, told over HTTP, and handed to other programs.
//!
//! TensorBoard reads what was exported if `.ci/setup` has brought it (`target/export-venv`).
//! `AILERON_EXPORT_VENV` names a Python environment with `tensorboard` and `mlflow` (`python3 -m
//! venv DIR && DIR/bin/pip install tensorboard mlflow`); with it, both read it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command as Program,
    thread,
    time::Duration,
};

use e2e::{
    Answer, BrokerKind, Command, Deadline, Http, Process, Stack, StackPlan, Turn, Victim, aileron,
    eventually, free_port, one_hot_base64, say, versions_are_whole,
};
use protocol::message::SessionState;
use serde_json::{Value, json};

use crate::sessions::{ends, reaches};

const ID: &str = "s-eval";
const ROUNDS: u64 = 4;
/// A tracking server begins with a database of its own to make.
const SERVER_MAX: Duration = Duration::from_secs(180);

#[test]
fn a_session_killed_while_it_evaluates_has_a_history_without_gap_or_double() {
    let _turn = Turn::take();
    let plan = StackPlan::new(BrokerKind::Embedded, 4);
    let mut stack = plan.start();
    let operator = stack.operator();
    let start = json!({
        "session_id": ID, "rounds": ROUNDS, "file": one_hot_base64(), "timeout_s": 100,
        "hyperparams": plan.fleet.hyperparams(300),
        "selection": {"participants": ["proplet-1", "proplet-2", "proplet-3"]},
        "evaluate": {"every": 2, "central": "proplet-4"},
    });
    let begun = posted(stack.rounds, "/fl/sessions", &start);
    assert_eq!(begun.status, 201, "{begun:?}");
    for (round, evaluation) in [(2, "s-eval-e2"), (4, "s-eval-e4-central")] {
        reaches(&operator, ID, round);
        operator.peer().wait_for(&format!("fl/rounds/{evaluation}/opened"));
        say(&format!("kill the coordinator in {evaluation}"));
        stack.kill(Victim::Coordinator);
        stack.start_again(Victim::Coordinator);
    }
    let status = ends(&operator, ID);
    assert_eq!((status.state, status.rounds_done), (SessionState::Complete, ROUNDS), "{status:?}");
    assert_eq!(status.metrics["central_accuracy"], 0.3, "{status:?}");
    versions_are_whole(&operator, ROUNDS);

    let history = history(stack.rounds);
    let numbers =
        |key: &str| -> Vec<u64> { history.iter().map(|row| row[key].as_u64().unwrap()).collect() };
    assert_eq!(numbers("round"), [1, 2, 3, 4]);
    assert_eq!(numbers("model_version"), [1, 2, 3, 4]);
    for row in &history {
        assert_eq!((&row["participants"], &row["num_updates"]), (&json!(3), &json!(3)), "{row}");
        let evaluations = row["evaluations"].as_array().map_or(0, Vec::len);
        let due = if row["round"].as_u64().unwrap() % 2 == 0 { 2 } else { 0 };
        assert_eq!(evaluations, due, "{row}");
    }
    // Each member reports its seat as its accuracy, and weighs as many samples as it has.
    let mean = (0.1 * 211.0 + 0.2 * 307.0) / (101.0 + 211.0 + 307.0);
    let series = &history[3]["series"];
    let found = series["eval_accuracy"].as_f64().unwrap();
    assert!((found - mean).abs() < 1e-12, "{series}");
    assert_eq!(
        (&series["eval_accuracy_min"], &series["eval_accuracy_max"]),
        (&json!(0.0), &json!(0.2))
    );
    assert_eq!(series["central_accuracy"], 0.3, "{series}");
    exported(&stack);
}

/// Nobody answers before the broker is there.
fn posted(http: Http, path: &str, body: &Value) -> Answer {
    eventually("the coordinator takes a session", || {
        let answer = http.try_ask("POST", path, Some(body)).ok()?;
        (answer.status != 503).then_some(answer)
    })
}

fn history(http: Http) -> Vec<Value> {
    let path = format!("/fl/sessions/{ID}/history");
    eventually("the coordinator tells the history", || {
        let answer = http.try_ask("GET", &path, None).ok().filter(|it| it.status == 200)?;
        let rows = answer.body["rows"].as_array()?.clone();
        assert_eq!(answer.body["total"].as_u64(), Some(rows.len() as u64));
        Some(rows)
    })
}

/// Every kind of export, twice, since the second time changes nothing.
fn exported(stack: &Stack) {
    let dir = stack.dir();
    let csv = dir.join("history.csv");
    export(stack, "csv", &csv.display().to_string());
    let lines = fs::read_to_string(&csv).unwrap();
    assert_eq!(lines.lines().count() as u64, ROUNDS + 1, "{lines}");
    let board = dir.join("board");
    export(stack, "tensorboard", &board.display().to_string());
    let file = only_file(&board.join(ID));
    let bytes = fs::read(&file).unwrap();
    export(stack, "tensorboard", &board.display().to_string());
    assert_eq!((only_file(&board.join(ID)), fs::read(&file).unwrap()), (file, bytes));
    let venv = venv();
    let has = |program: &str| venv.join("bin").join(program).exists();
    if has("tensorboard") {
        read_by_tensorboard(&venv, &board.join(ID));
    } else {
        say(&format!("TensorBoard was not asked: it is not in {}", venv.display()));
    }
    if has("mlflow") {
        read_by_mlflow(stack, &venv);
    } else {
        say(&format!("MLflow was not asked: it is not in {}", venv.display()));
    }
}

/// Whoever names an environment means it to be asked.
fn venv() -> PathBuf {
    let Some(named) = env::var_os("AILERON_EXPORT_VENV").map(PathBuf::from) else {
        return Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/export-venv");
    };
    for program in ["tensorboard", "mlflow"] {
        assert!(named.join("bin").join(program).exists(), "{} has no {program}", named.display());
    }
    named
}

fn export(stack: &Stack, kind: &str, place: &str) -> String {
    let api = format!("http://127.0.0.1:{}", stack.rounds.port);
    let words = ["session", "export", ID, "--to", kind, place, "--coordinator-http", &api];
    let command = Command {
        name: format!("export-{kind}"),
        program: aileron().to_owned(),
        args: words.map(str::to_owned).into(),
        env: vec![],
        dir: stack.dir(),
    };
    let mut process = command.start();
    let status = eventually(&format!("the export to {kind} ends"), || process.has_ended());
    assert!(status.success(), "{kind}: {}", process.log());
    process.log()
}

#[track_caller]
fn only_file(dir: &Path) -> PathBuf {
    let files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|it| it.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

/// TensorBoard's own reader finds every round of every number.
fn read_by_tensorboard(venv: &Path, dir: &Path) {
    let script = "import sys, json\n\
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n\
        read = EventAccumulator(sys.argv[1]); read.Reload()\n\
        print(json.dumps({tag: [[it.step, it.value] for it in read.Scalars(tag)] \
        for tag in read.Tags()['scalars']}))\n";
    let mut python = Program::new(venv.join("bin/python"));
    let output = python.args(["-c", script]).arg(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    let steps = |tag: &str| -> Vec<u64> {
        read[tag].as_array().unwrap().iter().map(|it| it[0].as_u64().unwrap()).collect()
    };
    assert_eq!(steps("train/loss"), [1, 2, 3, 4], "{read}");
    assert_eq!(steps("eval/accuracy_p10"), [2, 4], "{read}");
    let central = read["central/accuracy"][1][1].as_f64().unwrap();
    assert!((central - 0.3).abs() < 1e-6, "{read}");
    say("TensorBoard has read the history");
}

/// A real tracking server has each round once, however often it is told.
fn read_by_mlflow(stack: &Stack, venv: &Path) {
    let http = Http { port: free_port() };
    let server = mlflow(stack, venv, http);
    let deadline = Deadline::after(SERVER_MAX);
    while !http.try_ask("GET", "/health", None).is_ok_and(|it| it.status == 200) {
        assert!(deadline.left().is_some(), "MLflow does not serve: {}", server.log());
        thread::sleep(Duration::from_millis(200));
    }
    let url = format!("http://127.0.0.1:{}", http.port);
    assert!(export(stack, "mlflow", &url).contains("4 rounds logged"));
    assert!(export(stack, "mlflow", &url).contains("0 rounds logged"));
    let api = "/api/2.0/mlflow";
    let found = http.post(
        &format!("{api}/runs/search"),
        &json!({"experiment_ids": ["1"], "filter": format!("tags.`aileron.session` = '{ID}'")}),
    );
    let runs = found.body["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 1, "{found:?}");
    assert_eq!(runs[0]["info"]["status"], "FINISHED", "{found:?}");
    let run = runs[0]["info"]["run_id"].as_str().unwrap();
    let path = format!("{api}/metrics/get-history?run_id={run}&metric_key=train/loss");
    let steps = http.get(&path).body["metrics"].clone();
    let steps: Vec<i64> =
        steps.as_array().unwrap().iter().map(|it| it["step"].as_i64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 3, 4]);
    say("MLflow has the history");
}

/// One process, without the workers that `mlflow server` would leave behind.
fn mlflow(stack: &Stack, venv: &Path, http: Http) -> Process {
    let (port, dir) = (http.port.to_string(), stack.dir());
    let words = ["-m", "flask", "--app", "mlflow.server:app", "run", "--host", "127.0.0.1"];
    let words = words.into_iter().chain(["--port", &port]);
    let store = format!("sqlite:///{}", dir.join("mlflow.db").display());
    let artifacts = dir.join("artifacts").display().to_string();
    let command = Command {
        name: "mlflow".to_owned(),
        program: venv.join("bin/python"),
        args: words.map(str::to_owned).collect(),
        env: vec![
            ("_MLFLOW_SERVER_FILE_STORE".to_owned(), store),
            ("_MLFLOW_SERVER_ARTIFACT_ROOT".to_owned(), artifacts),
        ],
        dir,
    };
    command.start()
}
