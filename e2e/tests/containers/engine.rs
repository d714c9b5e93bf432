//! A container engine for stories, the machine's own or one of theirs, and images made of this machine's own files.

use std::{
    env,
    io::{Write as _, stderr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use e2e::{Process, eventually};
use tempfile::TempDir;

/// Says that no engine is needed on this machine; only then the stories may be left out.
const OPTIONAL: &str = "AILERON_TEST_DOCKER";
/// What no service in Python imports.
const LEFT_OUT: &[&str] =
    &["test", "site-packages", "idlelib", "ensurepip", "__pycache__", "config-*"];

/// An engine that answers. One that was started for the story ends with it.
pub(crate) struct Engine {
    address: String,
    started: Option<(Process, TempDir)>,
}

impl Engine {
    /// The engine that answers here, or one of our own, for which root and Debian's `docker.io` are needed.
    ///
    /// `None` only if `AILERON_TEST_DOCKER=optional` is set, and then the story says that it has tried nothing.
    pub(crate) fn find() -> Option<Self> {
        let address = env::var("DOCKER_HOST").ok().filter(|address| !address.is_empty());
        let address = address.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
        let installed = Self { address, started: None };
        if installed.answers() {
            return Some(installed);
        }
        let programs = ["/usr/sbin/dockerd", "/usr/bin/dockerd"];
        if programs.iter().any(|path| Path::new(path).exists()) {
            return Some(Self::start());
        }
        let why = "NO CONTAINER ENGINE, THE STORIES WITH CONTAINERS WERE NOT TRIED";
        let optional = env::var(OPTIONAL).is_ok_and(|value| value == "optional");
        assert!(optional, "{why}; install docker.io, or set {OPTIONAL}=optional");
        // Not `eprintln!`, which the harness of the tests keeps to itself.
        stderr().write_all(format!("\n{why}\n\n").as_bytes()).unwrap();
        None
    }

    fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("aileron-dockerd-").tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let address = format!("unix://{}", at("docker.sock"));
        let args =
            ["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")];
        let args = [&args[..], &["--host", &address]].concat();
        let process = e2e::Command::outside(dir.path(), "dockerd", &args).start();
        let engine = Self { address, started: Some((process, dir)) };
        eventually("the container engine answers", || engine.answers().then_some(()));
        engine
    }

    /// As `DOCKER_HOST` takes it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    fn answers(&self) -> bool {
        let asked = self.command(&["version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.address]).args(words);
        command
    }

    /// What the engine's own command says.
    #[track_caller]
    pub(crate) fn docker(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {words:?}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Containers and networks that bear a label of ours, running or not.
    pub(crate) fn left(&self) -> usize {
        let filter = "label=aileron.cosim.run";
        let containers = self.docker(&["ps", "--all", "--quiet", "--filter", filter]);
        let networks = self.docker(&["network", "ls", "--quiet", "--filter", filter]);
        containers.lines().count() + networks.lines().count()
    }

    /// An image of files of this machine, each at its own path, with the libraries that they need.
    pub(crate) fn import(&self, name: &str, files: &[PathBuf], path: &str) {
        let mut packed: Vec<PathBuf> = files.to_vec();
        for file in files {
            packed.extend(libraries(file));
        }
        // Sorted, a directory stands before what is in it, which comes with it.
        packed.sort();
        packed.dedup_by(|inner, outer| inner.starts_with(outer));
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("root.tar");
        let mut tar = Command::new("tar");
        tar.args(["--create", "--dereference", "--hard-dereference", "--directory", "/", "--file"]);
        tar.arg(&archive).args(LEFT_OUT.iter().map(|name| format!("--exclude={name}")));
        tar.args(packed.iter().map(|file| file.strip_prefix("/").unwrap()));
        assert!(tar.status().unwrap().success());
        let environment = format!("ENV PATH={path}");
        self.docker(&["import", "--change", &environment, &archive.display().to_string(), name]);
    }

    /// An image with one program and nothing else.
    pub(crate) fn import_program(&self, name: &str, program: &Path) {
        self.import(name, &[program.to_owned()], "/");
    }

    /// An image with this machine's Python and its standard library.
    pub(crate) fn import_python(&self, name: &str) {
        let ask = "import os, sys, sysconfig, glob; print(sys.executable)\n\
                   libraries = sysconfig.get_path('stdlib')\nprint(libraries)\n\
                   print(*glob.glob(os.path.join(libraries, 'lib-dynload', '*.so')), sep='\\n')";
        let output = Command::new("python3").args(["-c", ask]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let files: Vec<PathBuf> = text.lines().map(PathBuf::from).collect();
        let home = files[0].parent().unwrap().display().to_string();
        self.import(name, &files, &format!("{home}:/usr/bin:/bin"));
    }
}

/// What the loader brings with a program or library.
fn libraries(file: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(PathBuf::from)
        .collect()
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It ends its own helpers, if it is asked.
        if let Some((process, dir)) = &mut self.started {
            process.terminate();
            // The network of the host, once a container had it, stays mounted, and keeps the directory from its end.
            let mounted = dir.path().join("exec/netns/default");
            if mounted.exists() {
                drop(Command::new("umount").arg(mounted).status());
            }
        }
    }
}
