//! A process, as an operator meets it: signals and exit codes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use service::{run, telemetry};

const ROLE: &str = "RUN_TEST_ROLE";

#[derive(Debug, thiserror::Error)]
#[error("open the till")]
struct Broken(#[source] std::fmt::Error);

/// Not a test by itself: what the children of the tests below do.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    telemetry::init(match role.as_str() {
        "json" => telemetry::LogFormat::Json,
        _ => telemetry::LogFormat::Text,
    });
    let code = run::run(|stop| async move {
        tracing::info!("ready");
        match role.as_str() {
            "polite" | "json" => stop.cancelled().await,
            "stubborn" => std::future::pending().await,
            _ => return Err(Broken(std::fmt::Error)),
        }
        Ok(())
    });
    // An exit code has no number outside of `main`.
    let failed = format!("{code:?}") != format!("{:?}", std::process::ExitCode::SUCCESS);
    std::process::exit(i32::from(failed));
}

struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Process {
    fn start(role: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(ROLE, role)
            .env("AILERON_LOG", "info")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines }
    }

    fn says(&mut self, what: &str) -> String {
        let found = self.lines.by_ref().map_while(Result::ok).find(|line| line.contains(what));
        found.unwrap_or_else(|| panic!("{what:?} was not said"))
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

#[test]
fn both_signals_end_a_service_well() {
    for name in ["TERM", "INT"] {
        let mut process = Process::start("polite");
        process.says("ready");
        process.signal(name);
        assert_eq!(process.code(), Some(0), "{name}");
    }
}

#[test]
fn a_second_signal_ends_a_service_at_once() {
    let mut process = Process::start("stubborn");
    process.says("ready");
    process.signal("TERM");
    process.says("told to stop");
    // Right after the first one it is taken for an echo, so it is said until it is heard.
    while process.child.try_wait().unwrap().is_none() {
        process.signal("TERM");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(process.code(), Some(130));
}

#[test]
fn a_failure_is_logged_with_its_causes() {
    let mut process = Process::start("broken");
    process.says("open the till: an error occurred when formatting an argument");
    assert_eq!(process.code(), Some(1));
}

#[test]
fn a_log_line_can_be_json() {
    let mut process = Process::start("json");
    let line: serde_json::Value = serde_json::from_str(&process.says("ready")).unwrap();
    assert_eq!((&line["message"], &line["level"]), (&"ready".into(), &"INFO".into()));
    process.signal("TERM");
    assert_eq!(process.code(), Some(0));
}
