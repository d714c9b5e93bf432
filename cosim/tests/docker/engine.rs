//! A container engine for the tests: the machine's own, or one that is started for them and ended with them.

use std::{
    env,
    fs::File,
    io::{Write, stderr},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use cosim::launch::docker::Engine;
use rustix::process::{Pid, Signal, getuid, kill_process};

/// Says that no engine is needed on this machine; only then the stories may be left out.
const OPTIONAL: &str = "AILERON_TEST_DOCKER";

pub(crate) struct Daemon {
    pub(crate) socket: String,
    started: Option<(Child, tempfile::TempDir)>,
}

impl Daemon {
    /// The engine that answers here, or one of our own, for which root and Debian's `docker.io` are needed.
    ///
    /// `None` only if `AILERON_TEST_DOCKER=optional` is set, and then the test says that it has tried nothing.
    pub(crate) fn find() -> Option<Self> {
        if let Ok(engine) = Engine::connect() {
            return Some(Self { socket: engine.socket().to_owned(), started: None });
        }
        match Self::start() {
            Ok(daemon) => Some(daemon),
            Err(why) => {
                let why = format!("NO CONTAINER ENGINE, THE DOCKER STORIES WERE NOT TRIED: {why}");
                let optional = env::var(OPTIONAL).is_ok_and(|value| value == "optional");
                assert!(optional, "{why}; install docker.io, or set {OPTIONAL}=optional");
                // Not `eprintln!`, which the harness of the tests keeps to itself.
                stderr().write_all(format!("\n{why}\n\n").as_bytes()).unwrap();
                None
            }
        }
    }

    fn start() -> Result<Self, String> {
        if !getuid().is_root() {
            return Err("none answers, and only root can start one".to_owned());
        }
        let program = ["/usr/sbin/dockerd", "/usr/bin/dockerd"];
        let program = program.into_iter().find(|path| Path::new(path).exists());
        let program = program.ok_or("none answers, and dockerd is not installed")?;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let socket = at("docker.sock");
        let log = File::create(dir.path().join("log")).unwrap();
        let child = Command::new(program)
            .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")])
            .args(["--host", &format!("unix://{socket}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        let mut daemon = Self { socket, started: Some((child, dir)) };
        for _ in 0..600 {
            if Engine::at(&daemon.socket).is_ok() {
                return Ok(daemon);
            }
            let (child, dir) = daemon.started.as_mut().unwrap();
            if child.try_wait().unwrap().is_some() {
                let log = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(3).collect();
                return Err(format!("{program} ends: {last:?}"));
            }
            thread::sleep(Duration::from_millis(100));
        }
        Err(format!("{program} does not answer"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let Some((mut child, dir)) = self.started.take() else { return };
        // It ends its own helpers, if it is asked.
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        child.wait().unwrap();
        drop(dir);
    }
}
