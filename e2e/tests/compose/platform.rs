//! The platform of `compose.yaml` on an engine, with images that were made here.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use e2e::{Http, aileron, eventually, free_port, say, tool};

use crate::{engine::Engine, project};

const IMAGE: &str = "aileron-e2e-compose:here";
const BROKER_IMAGE: &str = "aileron-e2e-mosquitto:here";
/// Who Mosquitto is in its own image.
const BROKER_OWNER: &str = "1883:1883";

/// Who reads `compose.yaml`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reader {
    /// `docker-compose`, as Debian has it.
    Program,
    /// `docker compose`, where it is installed.
    Plugin,
}

/// A platform, and all that its commands have in common.
pub(crate) struct Platform<'a> {
    engine: &'a Engine,
    reader: Reader,
    name: String,
    pub(crate) http: Http,
    pub(crate) mqtt_port: u16,
    /// Settings that `compose.yaml` leaves to its user.
    env: Vec<(&'static str, String)>,
}

/// Makes both images: the platform's as `deploy/image` does, and a broker's of Debian's Mosquitto.
pub(crate) fn images(engine: &Engine) {
    let mut image = Command::new(project().join("deploy/image"));
    image.arg(aileron()).arg(IMAGE).env("DOCKER_HOST", engine.address());
    good(&image.output().unwrap(), "deploy/image");
    let programs = [tool("mosquitto"), tool("mosquitto_sub")];
    engine.import("aileron-e2e-mosquitto-programs", &programs, "/usr/bin");
    let context = tempfile::tempdir().unwrap();
    // As its own image has it.
    fs::create_dir_all(context.path().join("own/mosquitto/data")).unwrap();
    let dockerfile = format!(
        "FROM aileron-e2e-mosquitto-programs\nCOPY --chown={BROKER_OWNER} own/ /\n\
         VOLUME [\"/mosquitto/data\", \"/mosquitto/log\"]\n"
    );
    fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    let context = context.path().display().to_string();
    engine.docker(&["build", "--quiet", "--tag", BROKER_IMAGE, &context]);
}

impl Reader {
    /// The plugin if it is here, and else the program, which then is said.
    pub(crate) fn newest() -> Self {
        let asked = plugin().arg("version").output();
        if asked.is_ok_and(|output| output.status.success()) {
            return Self::Plugin;
        }
        say("no plugin `docker compose` is here: `docker-compose` reads for it");
        Self::Program
    }
}

impl<'a> Platform<'a> {
    /// One that is not up yet.
    pub(crate) fn new(engine: &'a Engine, reader: Reader, name: &str) -> Self {
        let (http, mqtt_port) = (Http { port: free_port() }, free_port());
        let env = vec![
            ("AILERON_IMAGE", IMAGE.to_owned()),
            ("MOSQUITTO_IMAGE", BROKER_IMAGE.to_owned()),
            ("AILERON_HTTP_PORT", http.port.to_string()),
            ("AILERON_FL_HTTP_PORT", free_port().to_string()),
            ("AILERON_MQTT_PORT", mqtt_port.to_string()),
        ];
        let name = format!("{name}-{}", std::process::id());
        Self { engine, reader, name, http, mqtt_port, env }
    }

    /// With what `compose.yaml` leaves to its user.
    pub(crate) fn with(mut self, variable: &'static str, value: &str) -> Self {
        self.env.push((variable, value.to_owned()));
        self
    }

    /// What the reader says to these words; they must go well.
    #[track_caller]
    pub(crate) fn compose(&self, words: &[&str]) -> String {
        good(&self.command(words).output().unwrap(), &format!("{:?} {words:?}", self.reader))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = match self.reader {
            Reader::Program => Command::new(tool("docker-compose")),
            Reader::Plugin => plugin(),
        };
        command.args(words).current_dir(project());
        command.env("DOCKER_HOST", self.engine.address());
        command.env("COMPOSE_PROJECT_NAME", &self.name);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The id of a service's container.
    #[track_caller]
    pub(crate) fn container(&self, service: &str) -> String {
        let id = self.compose(&["ps", "-a", "-q", service]);
        assert_eq!(id.lines().count(), 1, "containers of {service}: {id:?}");
        id
    }

    /// What the engine says of a service's container.
    #[track_caller]
    pub(crate) fn inspect(&self, service: &str, format: &str) -> String {
        self.engine.docker(&["inspect", "--format", format, &self.container(service)])
    }

    /// Waits until the engine has asked the service, and it is well.
    #[track_caller]
    pub(crate) fn wait_until_healthy(&self, service: &str) {
        let id = self.container(service);
        let format = "{{.State.Health.Status}}";
        eventually(&format!("{service} is healthy"), || {
            (self.engine.docker(&["inspect", "--format", format, &id]) == "healthy").then_some(())
        });
    }

    /// `kill -9` in the container, and a new start of it.
    #[track_caller]
    pub(crate) fn kill_and_start(&self, services: &[&str]) {
        let ids: Vec<String> = services.iter().map(|service| self.container(service)).collect();
        for id in &ids {
            self.engine.docker(&["kill", "-s", "KILL", id]);
        }
        for id in &ids {
            self.engine.docker(&["start", id]);
        }
    }

    /// A file of a container, whose image has no shell to ask.
    #[track_caller]
    pub(crate) fn file(&self, service: &str, path: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("file");
        let from = format!("{}:{path}", self.container(service));
        self.engine.docker(&["cp", &from, &to.display().to_string()]);
        fs::read(Path::new(&to)).unwrap()
    }

    /// Takes everything down, with its volumes, and looks whether anything is left.
    #[track_caller]
    pub(crate) fn down(&self) {
        self.compose(&["down", "--volumes"]);
        let filter = format!("label=com.docker.compose.project={}", self.name);
        let filter = ["--quiet", "--filter", &filter];
        let left = [&["ps", "--all"][..], &["network", "ls"], &["volume", "ls"]]
            .map(|what| self.engine.docker(&[what, &filter].concat()));
        assert_eq!(left, ["", "", ""], "left of {}", self.name);
    }
}

impl Drop for Platform<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.command(&["logs", "--tail=30", "--no-color"]);
            show(logs);
            let down = self.command(&["down", "--volumes"]);
            show(down);
        }
    }
}

fn plugin() -> Command {
    let mut command = Command::new("docker");
    command.arg("compose");
    command
}

fn show(mut command: Command) {
    if let Ok(output) = command.output() {
        say(&String::from_utf8_lossy(&output.stdout));
    }
}

/// What a command has said, which must have gone well.
#[track_caller]
fn good(output: &Output, what: &str) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}\n{said}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
