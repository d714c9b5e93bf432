//! `scenarios/mixed.yaml` on a real engine: its claims hold, twice the same, a container may die, and whoever kills the
//! run leaves nothing behind.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use e2e::{Turn, eventually};
use tempfile::TempDir;

use crate::{copy, engine::Engine, sim, told};

/// The base image of the Dockerfiles beside the Python library, and ours in its place.
const BASE: &str = "python:3.12-slim";
const OURS: &str = "aileron-e2e-python:here";

#[test]
fn a_mixed_run_is_what_it_claims_however_it_ends() {
    let _turn = Turn::take();
    let Some(engine) = Engine::find() else { return };
    engine.import_python(OURS);
    let stage = Stage::set();
    runs_twice_the_same(&stage, &engine);
    goes_on_without_a_container(&stage, &engine);
    for signal in ["INT", "KILL"] {
        leaves_nothing(&stage, &engine, signal);
    }
}

/// The scenario and what it names, on a base image that needs no registry.
struct Stage {
    dir: TempDir,
}

impl Stage {
    fn set() -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy("sdk/python", &dir.path().join("sdk/python"));
        copy("scenarios/mixed.yaml", &dir.path().join("scenarios/mixed.yaml"));
        for name in ["echo", "ml_inference", "mqtt_gateway"] {
            let file = dir.path().join(format!("sdk/python/Dockerfile.{name}"));
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.contains(BASE), "{text}");
            fs::write(&file, text.replace(BASE, OURS)).unwrap();
        }
        Self { dir }
    }

    fn scenario(&self) -> PathBuf {
        self.dir.path().join("scenarios/mixed.yaml")
    }

    /// The scenario with some words changed, under another name.
    fn varied(&self, name: &str, changes: &[(&str, &str)]) -> PathBuf {
        let mut text = fs::read_to_string(self.scenario()).unwrap();
        for (from, to) in changes {
            assert!(text.contains(from), "{text}");
            text = text.replace(from, to);
        }
        let path = self.scenario().with_file_name(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, engine: &Engine, file: &Path, words: &[&str]) -> Command {
        let mut command = sim(self.dir.path(), Some(engine));
        command.arg("run").arg(file).args(words);
        command
    }

    /// Starts a run at the wall's pace, and waits until its containers are there and it has something to tell.
    fn start(&self, engine: &Engine, file: &Path) -> Child {
        let trace = self.dir.path().join("run.ndjson");
        drop(fs::remove_file(&trace));
        let mut command =
            self.run(engine, file, &["--pace", "1", "--trace", trace.to_str().unwrap()]);
        let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("the run has begun", || {
            fs::metadata(&trace).is_ok_and(|file| file.len() > 0).then_some(())
        });
        assert_eq!(engine.left(), 2);
        run
    }
}

fn trace(said: &str) -> &str {
    said.lines().find(|line| line.starts_with("trace ")).unwrap_or_else(|| panic!("{said}"))
}

fn runs_twice_the_same(stage: &Stage, engine: &Engine) {
    let run = |words: &[&str]| told(&mut stage.run(engine, &stage.scenario(), words));
    let (first, again) = (run(&[]), run(&["--threads", "1"]));
    assert!(first.matches("holds: ").count() >= 6, "{first}");
    assert_eq!(trace(&first), trace(&again), "{first}\n{again}");
    assert_eq!(engine.left(), 0);
}

/// Killed in mid-run, it is named, and the run goes on or ends, as the scenario says.
fn goes_on_without_a_container(stage: &Stage, engine: &Engine) {
    // Nobody answers the sensor any more, which has all the time of the run.
    let node = [("id: classifier\n", "id: classifier\n    on_failure: go_on\n")];
    let patience = [("every_us: 250000", "every_us: 250000, deadline_us: 600000000")];
    let file = stage.varied("lossy.yaml", &[node, patience].concat());
    for (file, goes_on) in [(file, true), (stage.scenario(), false)] {
        let run = stage.start(engine, &file);
        let label = "label=aileron.cosim.node=classifier";
        let id = engine.docker(&["ps", "--quiet", "--filter", label]);
        engine.docker(&["kill", &id]);
        let output = run.wait_with_output().unwrap();
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("node classifier at ") && said.contains("exit code 137"), "{said}");
        assert_eq!(said.contains("holds: rounds_complete == 4"), goes_on, "{said}");
        assert_eq!(said.contains("FAILS: lost_nodes == 0 (found 1)"), goes_on, "{said}");
        assert_eq!(engine.left(), 0);
    }
}

fn leaves_nothing(stage: &Stage, engine: &Engine, signal: &str) {
    let mut run = stage.start(engine, &stage.scenario());
    let dirs = dirs();
    assert!(!dirs.is_empty(), "a run has a directory");
    let pid = run.id().to_string();
    assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    let status = run.wait().unwrap();
    assert!(!status.success(), "{status}");
    assert_eq!(status.signal().is_some(), signal == "KILL", "{status}");
    eventually("no container is left", || (engine.left() == 0).then_some(()));
    eventually("no directory is left", || dirs.iter().all(|dir| !dir.exists()).then_some(()));
    eventually("no sensor is left", || (sensors(stage) == 0).then_some(()));
}

/// Directories of runs that are there now.
fn dirs() -> Vec<PathBuf> {
    let entries = fs::read_dir(std::env::temp_dir()).unwrap().map(|entry| entry.unwrap().path());
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let id = name.strip_prefix("cosim-");
        id.is_some_and(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    entries.filter(is_ours).filter(|path| path.is_dir()).collect()
}

/// Processes that run the sensor of this stage.
fn sensors(stage: &Stage) -> usize {
    let dir = stage.dir.path().join("scenarios");
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    entries
        .filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == dir))
        .count()
}
