//! A process under test: its output kept, killed at will, started again with the same words, and
//! never left behind.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    thread,
};

use crate::{eventually, say, tool};

/// Lines of a log that a failing story shows.
const TAIL_LINES: usize = 30;
/// Settings of the platform that the test's own environment may hold.
const SETTINGS: &[&str] = &[
    "AILERON_",
    "MANAGER_",
    "COORDINATOR_",
    "MODEL_SERVER_",
    "PROPLET_",
    "BROKER_",
    "REGISTRAR_",
    "OTEL_",
];

/// How to start a process, again and again.
#[derive(Clone, Debug)]
pub struct Command {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Where it runs, and where its log is.
    pub dir: PathBuf,
}

/// A running or ended process.
#[derive(Debug)]
pub struct Process {
    command: Command,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Command {
    /// `aileron` with a service's name and its environment.
    pub fn service(dir: &Path, name: &str, service: &str, env: &[(String, String)]) -> Self {
        Self {
            name: name.to_owned(),
            program: crate::aileron().to_owned(),
            args: vec![service.to_owned()],
            env: env.to_vec(),
            dir: dir.to_owned(),
        }
    }

    /// An outside program.
    pub fn outside(dir: &Path, program: &str, args: &[&str]) -> Self {
        Self {
            name: program.to_owned(),
            program: tool(program),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: vec![],
            dir: dir.to_owned(),
        }
    }

    /// Starts it.
    pub fn start(self) -> Process {
        let child = spawn(&self);
        Process { command: self, child, ended: None }
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }
}

impl Process {
    /// All that it has written to stdout and stderr, over all its starts.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.command.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What its log is called after.
    pub fn name(&self) -> &str {
        &self.command.name
    }

    /// The process id of the latest start.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until its log holds a text.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        let name = &self.command.name;
        eventually(&format!("{name} says {text:?}"), || self.log().contains(text).then_some(()));
    }

    /// `kill -9`: no last words, nothing flushed.
    pub fn kill(&mut self) {
        // It may have ended by itself; the story finds out by other means.
        let _ = self.child.kill();
        self.ended = self.child.wait().ok();
    }

    /// Asks it to end and waits for that.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let asked = std::process::Command::new("sh").args(["-c", "kill -TERM $0", &pid]).status();
        assert!(asked.is_ok_and(|status| status.success()), "ask process {pid} to end");
        self.wait()
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let name = self.command.name.clone();
        eventually(&format!("{name} ends"), || self.has_ended())
    }

    /// How it ended, if it did.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Starts it again with the same words; it must have ended.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.has_ended().is_some(), "{} still runs", self.command.name);
        self.child = spawn(&self.command);
        self.ended = None;
    }

    /// Changes an environment variable for the next start.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.command.env.retain(|(known, _)| known != name);
        self.command.env.push((name.to_owned(), value.to_owned()));
    }

    fn show_tail(&self) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        say(&format!("--- end of the log of {}\n{}", self.command.name, tail.join("\n")));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            self.show_tail();
        }
    }
}

/// Also dies with the thread that started it, should the story be killed with no time to clean up.
fn spawn(command: &Command) -> Child {
    let log = File::options().create(true).append(true).open(command.log_path());
    let log = log.unwrap_or_else(|why| panic!("{}: {why}", command.log_path().display()));
    let err = log.try_clone().expect("a file handle can be cloned");
    let mut started = std::process::Command::new(tool("setpriv"));
    started.args(["--pdeathsig", "KILL", "--"]).arg(&command.program).args(&command.args);
    for (name, _) in std::env::vars_os() {
        let known = name.to_string_lossy();
        if SETTINGS.iter().any(|prefix| known.starts_with(prefix)) {
            started.env_remove(&name);
        }
    }
    started.envs(command.env.iter().map(|(name, value)| (name, value)));
    started.current_dir(&command.dir).stdin(Stdio::null()).stdout(log).stderr(err);
    started.spawn().unwrap_or_else(|why| panic!("start {}: {why}", command.program.display()))
}
