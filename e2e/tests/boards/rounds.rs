//! Boards of other kinds in a round, with the services and a proplet of this machine.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use e2e::{BrokerKind, Deadline, Operator, Process, Stack, StackPlan, Turn, aileron, say, tool};
use serde_json::{Value, json};

use crate::{
    crossed::{self, Processor},
    good,
};

/// An emulated board is some twenty times slower than the machine, and the machine may be busy.
const ROUND_S_MAX: u64 = 300;

/// One proplet, and how it gets its code.
struct Board {
    id: &'static str,
    program: &'static str,
    processor: Processor,
    /// Where the metrics say that the executable form came from.
    origin: &'static str,
}

const BOARDS: &[Board] = &[
    Board {
        id: "arm64",
        program: "aileron-proplet",
        processor: Processor::Arm64,
        origin: "compiled",
    },
    Board {
        id: "armhf-small",
        program: "aileron-proplet-small",
        processor: Processor::Armhf,
        origin: "ahead",
    },
];

/// Another compiler to build.
const BOARDS_IN_FULL: &[Board] = &[Board {
    id: "armhf",
    program: "aileron-proplet",
    processor: Processor::Armhf,
    origin: "compiled",
}];

impl Board {
    /// What its package puts on a board.
    fn unpacked(&self, dir: &Path) -> PathBuf {
        let root = dir.join(self.id);
        let package = crossed::package(self.program, self.processor, dir);
        good(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&root));
        root
    }
}

#[test]
fn boards_of_every_kind_make_the_very_update_that_this_machine_makes() {
    if !crossed::wanted() {
        return;
    }
    let more = if crossed::in_full() { BOARDS_IN_FULL } else { &[] };
    let boards = BOARDS.iter().chain(more);
    let boards: Vec<&Board> =
        boards.filter(|board| crossed::reaches(board.program, board.processor)).collect();
    let dir = tempfile::tempdir().unwrap();
    let roots: Vec<_> = boards.iter().map(|board| board.unpacked(dir.path())).collect();
    let _turn = Turn::take();
    let digits = dir.path().join("digits");
    good(
        Command::new(aileron()).args(["demo", "--prepare", "--proplets=1", "--keep"]).arg(&digits),
    );

    let model = digits.join("model_0.json").display().to_string();
    let plan = StackPlan::new(BrokerKind::Embedded, 0).with("MODEL_SERVER_MODEL_FILE", model);
    let stack = plan.start();
    // Before there is a proplet: the stack itself has none, and its operator waits for that.
    let operator = stack.operator();
    let mut running = vec![start(&stack, "here", None, &digits, &[])];
    for (board, root) in boards.iter().zip(&roots) {
        let program = root.join("usr/bin/aileron-proplet");
        let emulated = Some((board.processor, program.as_path()));
        let ahead = root.join("usr/lib/aileron/precompiled");
        let env = [("PROPLET_PRECOMPILED_DIR", ahead.display().to_string())];
        let env = if ahead.exists() { &env[..] } else { &[] };
        running.push(start(&stack, board.id, emulated, &digits, env));
    }
    everybody_makes_the_same_update(&operator, &stack, &boards);
    the_origin_of_the_code_is_told(&stack, &boards);
    for mut process in running {
        assert!(process.terminate().success(), "{}", process.log());
    }
}

#[test]
fn a_proplet_without_a_compiler_says_what_it_needs_and_takes_nothing_that_is_not_allowed() {
    if !crossed::wanted() || !crossed::reaches("aileron-proplet-small", Processor::Armhf) {
        return;
    }
    let program = crossed::program("aileron-proplet-small", Processor::Armhf);
    let compiler = crossed::compiler();
    let _turn = Turn::take();
    let stack = StackPlan::new(BrokerKind::Embedded, 0).start();
    let dir = stack.dir();
    let module = dir.join("module.wasm");
    fs::write(&module, wat::parse_str(r#"(module (func (export "_start")))"#).unwrap()).unwrap();
    let compile = |target: &str| {
        let mut command = Command::new(&compiler);
        command.args(["workload", "compile", "--format=json", "--target", target]).arg(&module);
        let said = good(command.arg("--out").arg(dir.join(target)));
        let said: Value = serde_json::from_str(&said).unwrap();
        said["sha256"].as_str().unwrap().to_owned()
    };
    let allowed = [compile("armv7"), compile("pulley64")].join(",");
    let changed = [&fs::read(dir.join("armv7")).unwrap()[..], b"changed"].concat();
    fs::write(dir.join("changed"), changed).unwrap();

    let emulated = Some((Processor::Armhf, program.as_path()));
    let more =
        [("PROPLET_PRECOMPILED_ALLOW", allowed), ("PROPLET_MODULE_DIR", dir.display().to_string())];
    let _board = start(&stack, "board", emulated, &dir, &more);
    stack.http.wait_for_alive(1);
    let run = |file: &str| {
        let url = format!("file://{}", dir.join(file).display());
        stack.http.wait_for_end(&stack.http.run_task(&json!({"name": file, "image_url": url})))
    };
    for (file, why) in [
        ("module.wasm", "--target armv7"),
        ("changed", "the owner of the device allows it"),
        ("pulley64", "compiled for architecture 'pulley64'"),
    ] {
        let ended = run(file);
        assert_eq!(ended["state"], "Failed", "{file}: {ended}");
        assert!(ended["error"].as_str().is_some_and(|it| it.contains(why)), "{file}: {ended}");
    }
    let ended = run("armv7");
    assert_eq!(ended["state"], "Completed", "{ended}");
}

/// A proplet beside the stack, emulated or not.
fn start(
    stack: &Stack,
    id: &str,
    emulated: Option<(Processor, &Path)>,
    digits: &Path,
    more: &[(&str, String)],
) -> Process {
    let dir = stack.dir();
    let data = digits.join("data/proplet-1");
    let mut env = vec![
        ("PROPLET_ID", id.to_owned()),
        ("PROPLET_MQTT_ADDRESS", stack.field().address()),
        ("PROPLET_STATE_DIR", dir.join(format!("{id}-state")).display().to_string()),
    ];
    if data.exists() {
        env.push(("PROPLET_DATA_DIR", data.display().to_string()));
    }
    env.extend(more.iter().cloned());
    let emulator = emulated.map(|(processor, _)| processor.environment()).unwrap_or_default();
    env.extend(emulator.iter().map(|(key, value)| (*key, (*value).to_owned())));
    let env: Vec<_> = env.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let mut command = e2e::Command::service(&dir, id, "proplet", &env);
    if let Some((processor, program)) = emulated {
        command.program = tool(processor.emulator());
        command.args = vec![program.display().to_string()];
    }
    command.start()
}

/// One round, with the same data for everybody: what is trained then depends on the code alone.
fn everybody_makes_the_same_update(operator: &Operator, stack: &Stack, boards: &[&Board]) {
    let ids: Vec<&str> = boards.iter().map(|board| board.id).chain(["here"]).collect();
    stack.http.wait_for_alive(ids.len());
    let start = json!({
        "round_id": "r-boards", "model_uri": "fl/models/global_model_v0", "participants": ids,
        "hyperparams": {"epochs": 2, "lr": 0.1, "batch_size": 16}, "k_of_n": ids.len(),
        "timeout_s": ROUND_S_MAX,
    });
    operator.peer().publish("fl/rounds/start", start.to_string());
    let complete =
        operator.peer().hears(Deadline::after(Duration::from_secs(ROUND_S_MAX)), |heard| {
            heard.iter().find(|m| m.is_on("fl/rounds/r-boards/complete")).map(e2e::Heard::json)
        });
    let complete = complete.expect("the round ends in time");
    assert_eq!(complete["num_updates"], json!(ids.len()), "{complete}");
    let updates = operator.peer().all("fl/rounds/r-boards/updates/+");
    let made: BTreeSet<String> = updates.iter().map(|it| it.json()["update"].to_string()).collect();
    let from: BTreeSet<&str> =
        updates.iter().filter_map(|it| it.topic.rsplit('/').next()).collect();
    assert_eq!(from.len(), ids.len(), "updates from {from:?}");
    assert_eq!(made.len(), 1, "{} different updates from {from:?}", made.len());
}

fn the_origin_of_the_code_is_told(stack: &Stack, boards: &[&Board]) {
    let tasks = stack.http.get("/tasks?limit=100").body;
    for board in boards {
        let task =
            tasks["tasks"].as_array().unwrap().iter().find(|it| it["proplet_id"] == board.id);
        let id = task.unwrap()["id"].as_str().unwrap();
        let metrics = stack.http.get(&format!("/tasks/{id}/metrics")).body;
        let text = metrics.to_string();
        assert!(text.contains(&format!("\"module\":\"{}\"", board.origin)), "{}: {text}", board.id);
        say(&format!("{}: {text}", board.id));
    }
}
