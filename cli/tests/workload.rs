//! A workload of one's own, as the README has it: made, built, checked, tried, and run in a round.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail, and says so")]

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

const AILERON: &str = env!("CARGO_BIN_EXE_aileron");
const README: &str = include_str!("../../README.md");
const HOSTILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../client-wasm/hostile");
const ROWS: usize = 40;

#[test]
fn the_three_commands_of_the_readme_lead_to_a_round() {
    let dir = tempfile::tempdir().unwrap();
    let mut up = None;
    for line in commands("## Your own workload") {
        if let Some(background) = line.strip_suffix(" &") {
            // As it stands, but on ports that nobody has.
            let ports = "--http-port 0 --coordinator-http-port 0";
            let listen = format!("--broker-listen 127.0.0.1:0 {ports}");
            up = Some(Up::start(dir.path(), &format!("{background} {listen}")));
            continue;
        }
        let line = match &up {
            Some(up) => format!("{line} {}", up.addresses),
            None => line,
        };
        let output = shell(dir.path(), &line);
        let said = said(&output);
        assert!(output.status.success(), "{line}: {said}");
        match line.split_whitespace().nth(2).unwrap_or_default() {
            "check" => assert!(said.contains("A proplet can run it."), "{said}"),
            "run" => assert!(said.contains("round 5: accepted; 40 samples"), "{said}"),
            "start" => assert!(said.contains("complete"), "{said}"),
            _ => {}
        }
    }
    let model = dir.path().join(".aileron/up/model-server/global_model_v1.json");
    let model: Value = serde_json::from_slice(&fs::read(model).unwrap()).unwrap();
    assert!(model["b"].as_f64().unwrap() > 0.1, "the round has learned: {model}");
}

#[test]
fn every_template_builds_and_learns_what_the_others_learn() {
    let dir = tempfile::tempdir().unwrap();
    let mut first: Option<Vec<Value>> = None;
    for (lang, there) in [
        ("rust", true),
        ("c", true),
        ("cpp", Path::new("/usr/include/wasm32-wasi/c++").exists()),
        ("python", Command::new("componentize-py").arg("--version").output().is_ok()),
    ] {
        if !there {
            eprintln!("workload in {lang} not tried: its tools are not installed");
            continue;
        }
        let name = format!("my-{lang}");
        let wasm = format!("{name}/{name}.wasm");
        must(dir.path(), &["new", &name, "--lang", lang]);
        must(dir.path(), &["build", &name]);
        let report: Value = json(&must(dir.path(), &["check", &wasm, "--format", "json"]));
        assert_eq!((&report["runs"], &report["problems"]), (&true.into(), &Value::Array(vec![])));
        let data = format!("{name}/data");
        let flags = ["run", &wasm, "--data", &data, "--rounds", "4", "--format", "json"];
        let rounds: Value = json(&must(dir.path(), &flags));
        let losses: Vec<Value> =
            rounds.as_array().unwrap().iter().map(|row| row["metrics"]["loss"].clone()).collect();
        assert_eq!(losses.len(), 4);
        assert!(losses[3].as_f64() < losses[0].as_f64(), "{lang}: {losses:?}");
        for row in rounds.as_array().unwrap() {
            assert_eq!((&row["verdict"], &row["num_samples"]), (&"accepted".into(), &ROWS.into()));
            assert!(row["fuel"].as_u64() > Some(0) && row["memory_bytes"].as_u64() > Some(0));
        }
        let close = |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-9;
        let first = first.get_or_insert_with(|| losses.clone());
        assert!(first.iter().zip(&losses).all(|(a, b)| close(a, b)), "{lang}: {losses:?}");
    }
}

#[test]
fn what_would_be_rejected_is_told_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    for (guest, flags, reason) in [
        ("nan-update", &[][..], "not_finite"),
        ("zero-samples", &[], "num_samples"),
        ("silent", &[], "nothing was printed"),
        ("trap", &[], "the guest trapped"),
        ("exit-3", &[], "exit code 3"),
        ("loop-forever", &["--timeout", "1"], "longer than its limit of 1000 ms"),
        ("loop-forever", &["--fuel", "100000"], "used up its fuel of 100000"),
        ("no-entry", &[], "exports no function `_start`"),
    ] {
        let wasm = assembled(dir.path(), guest);
        let words = [&["run", &wasm, "--format", "json"], flags].concat();
        let output = workload(dir.path(), &words);
        assert_eq!(output.status.code(), Some(1), "{guest}");
        let rounds = json(&String::from_utf8(output.stdout).unwrap());
        assert_ne!(rounds[0]["verdict"], "accepted", "{guest}");
        let said = rounds[0]["reason"].as_str().unwrap();
        assert!(said.contains(reason), "{guest}: {said}");
    }
    // The coordinator has a word, too: this update fits the platform's first model, not this one.
    let wasm = assembled(dir.path(), "valid-update");
    let rounds = workload(dir.path(), &["run", &wasm, "--shape", "v=7", "--format", "json"]);
    let rounds = json(&String::from_utf8(rounds.stdout).unwrap());
    let reason = rounds[0]["reason"].as_str().unwrap_or_default();
    assert!(rounds[0]["verdict"] == "rejected" && reason.starts_with("shape: "), "{rounds}");
}

#[test]
fn what_a_proplet_cannot_run_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for (text, problem) in [
        (r#"(module (func (export "main")))"#, "exports no function `_start`"),
        (
            r#"(module (import "env" "fetch" (func)) (func (export "_start")))"#,
            "wants env::fetch, which the sandbox does not have",
        ),
        (r#"(module (memory 60000) (func (export "_start")))"#, "begins with 3932160000 bytes"),
    ] {
        let path = dir.path().join("guest.wasm");
        fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
        let output = workload(dir.path(), &["check", "guest.wasm"]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(problem), "{said}");
    }
    fs::write(dir.path().join("guest.wasm"), "no program").unwrap();
    let said = said(&workload(dir.path(), &["check", "guest.wasm"]));
    assert!(said.contains("not a WebAssembly module or component: 10 bytes"), "{said}");
}

#[test]
fn missing_tools_are_named_with_their_packages() {
    let dir = tempfile::tempdir().unwrap();
    for (lang, tool, package) in
        [("c", "clang", "wasi-libc"), ("python", "componentize-py", "pip install componentize-py")]
    {
        must(dir.path(), &["new", lang, "--lang", lang]);
        let mut build = Command::new(AILERON);
        build.args(["workload", "build", lang]).env("PATH", "").current_dir(dir.path());
        let output = build.output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(&format!("{tool} is not installed")) && said.contains(package),
            "{said}"
        );
    }
}

/// The commands in the code of a section of the README.
fn commands(section: &str) -> Vec<String> {
    let (_, rest) = README.split_once(&format!("{section}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap().lines());
    let commands: Vec<String> = lines
        .map(|line| line.split("  #").next().unwrap().trim_end().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    assert!(commands.len() >= 6, "{commands:?}");
    commands
}

/// A platform that ends with the test.
struct Up {
    child: Child,
    addresses: String,
}

impl Up {
    fn start(dir: &Path, line: &str) -> Self {
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("aileron"));
        let mut child = Command::new(AILERON)
            .args(words)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut after = |word: &str| {
            let line = lines.find_map(|line| {
                line.unwrap().trim().strip_prefix(word).map(|rest| rest.trim().to_owned())
            });
            line.unwrap_or_else(|| panic!("{word} was not said"))
        };
        let (mqtt, both) = (after("MQTT"), after("HTTP"));
        let http = both.split_whitespace().next().unwrap().to_owned();
        // The pipe must not fill up.
        std::thread::spawn(move || lines.count());
        let up = Self { child, addresses: format!("--mqtt-address {mqtt} --http {http}") };
        // A user takes longer to type the next line than a proplet takes to say that it is there.
        loop {
            let words = ["proplet", "list", "--format", "json", "--http", &http];
            let list = Command::new(AILERON).args(words).output().unwrap();
            if said(&list).contains("\"alive\": true") {
                return up;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A hostile guest as a program.
fn assembled(dir: &Path, guest: &str) -> String {
    let name = format!("{guest}.wasm");
    let bytes = wat::parse_file(format!("{HOSTILE}/{guest}.wat")).unwrap();
    fs::write(dir.join(&name), bytes).unwrap();
    name
}

fn must(dir: &Path, words: &[&str]) -> String {
    let output = workload(dir, words);
    assert!(output.status.success(), "{words:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn workload(dir: &Path, words: &[&str]) -> Output {
    Command::new(AILERON).arg("workload").args(words).current_dir(dir).output().unwrap()
}

/// A line as a user types it.
fn shell(dir: &Path, line: &str) -> Output {
    let program = Path::new(AILERON).parent().unwrap().display().to_string();
    let path = format!("{program}:{}", env::var("PATH").unwrap_or_default());
    Command::new("sh").args(["-c", line]).env("PATH", path).current_dir(dir).output().unwrap()
}

fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"))
}
