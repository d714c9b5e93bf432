//! The platform, each service a process of its own, on one broker or on several.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{
    Broker, BrokerKind, Command, Http, OneHotFleet, Operator, Process, aileron, eventually,
    free_port, one_hot_base64, say,
};

/// Who can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    Broker,
    Manager,
    Coordinator,
    ModelServer,
    /// The first proplet.
    Proplet,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct StackPlan {
    pub broker: BrokerKind,
    pub fleet: OneHotFleet,
    /// More settings, as environment variables; each service sees those with its
    /// prefix, and all see those of OpenTelemetry.
    pub env: Vec<(String, String)>,
    /// Whether manager, coordinator, model server and proplets have a broker each.
    pub apart: bool,
    /// Whether model server and proplets have a port for health and metrics, too.
    pub vitals: bool,
    /// A service, by name, whose state is elsewhere, and where.
    pub state_of: Option<(String, PathBuf)>,
    /// Where each proplet's data is, in a directory of its name.
    pub data: Option<PathBuf>,
}

/// The running platform. Everything in it ends when it is dropped.
#[derive(Debug)]
pub struct Stack {
    pub manager: Process,
    pub coordinator: Process,
    pub model_server: Process,
    pub proplets: Vec<Process>,
    /// One, or those of manager, coordinator, model server and proplets.
    pub brokers: Vec<Broker>,
    /// The manager's API.
    pub http: Http,
    /// The coordinator's.
    pub rounds: Http,
    /// Health and metrics of the model server and of each proplet, if the plan has them.
    pub vitals: Vec<Http>,
    dir: StoryDir,
}

/// A directory that is left for reading when its story fails.
#[derive(Debug)]
struct StoryDir(Option<TempDir>);

impl StackPlan {
    /// A fleet on one broker.
    pub fn new(broker: BrokerKind, proplets: usize) -> Self {
        Self {
            broker,
            fleet: OneHotFleet::of(proplets),
            env: vec![],
            apart: false,
            vitals: false,
            state_of: None,
            data: None,
        }
    }

    /// With one more setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.env.push((name.to_owned(), value.to_string()));
        self
    }

    /// With a port for health and metrics at every service.
    #[must_use]
    pub fn with_vitals(self) -> Self {
        Self { vitals: true, ..self }
    }

    /// With the state of one service, by name, below another directory.
    #[must_use]
    pub fn with_state(mut self, name: &str, dir: &Path) -> Self {
        self.state_of = Some((name.to_owned(), dir.to_owned()));
        self
    }

    /// With data for the proplets, each its own in a directory of its name.
    #[must_use]
    pub fn with_data(mut self, dir: &Path) -> Self {
        self.data = Some(dir.to_owned());
        self
    }

    /// Starts brokers and services, in no particular order, and waits for nobody but the brokers.
    #[track_caller]
    pub fn start(&self) -> Stack {
        // Both may have to be built; a story's deadlines are not for that.
        aileron();
        one_hot_base64();
        let dir = tempfile::Builder::new().prefix("aileron-e2e-").tempdir();
        let dir = dir.expect("a temporary directory can be made");
        let count = if self.apart { 4 } else { 1 };
        let brokers: Vec<Broker> =
            (0..count).map(|_| Broker::start(self.broker, dir.path())).collect();
        let address = |role: usize| brokers[role % count].address();
        let http = Http { port: free_port() };
        let start = |name: &str, service: &str, role: usize, own: &[(&str, String)]| {
            let mut env = self.env(dir.path(), name, service, &address(role));
            env.extend(own.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
            Command::service(dir.path(), name, service, &env).start()
        };
        let manager =
            start("manager", "manager", 0, &[("MANAGER_HTTP_PORT", http.port.to_string())]);
        let rounds = Http { port: free_port() };
        let port = ("COORDINATOR_HTTP_PORT", rounds.port.to_string());
        let coordinator = start("coordinator", "coordinator", 1, &[port]);
        let count = if self.vitals { 1 + self.fleet.members.len() } else { 0 };
        let vitals: Vec<Http> = (0..count).map(|_| Http { port: free_port() }).collect();
        let port = |index: usize| vitals.get(index).map(|http| http.port.to_string());
        let mut own = self.model_file(dir.path());
        own.extend(port(0).map(|port| ("MODEL_SERVER_HTTP_PORT", port)));
        let model_server = start("model-server", "model-server", 2, &own);
        let proplet = |(index, id): (usize, &protocol::PropletId)| {
            let data = self.data.as_ref().map(|dir| dir.join(id.as_str()).display().to_string());
            let mut own = vec![("PROPLET_ID", id.to_string())];
            own.extend(data.map(|dir| ("PROPLET_DATA_DIR", dir)));
            own.extend(port(1 + index).map(|port| ("PROPLET_HTTP_PORT", port)));
            start(id.as_str(), "proplet", 3, &own)
        };
        let proplets = self.fleet.members.iter().enumerate().map(proplet).collect();
        let dir = StoryDir(Some(dir));
        Stack { manager, coordinator, model_server, proplets, brokers, http, rounds, vitals, dir }
    }

    /// Model 0 of the fleet, unless the platform's default will do.
    fn model_file(&self, dir: &Path) -> Vec<(&'static str, String)> {
        if self.fleet.fits_default_model() {
            return vec![];
        }
        let path = dir.join("model-0.json");
        fs::write(&path, self.fleet.model_0().to_string()).expect("model 0 can be written");
        vec![("MODEL_SERVER_MODEL_FILE", path.display().to_string())]
    }

    fn env(&self, dir: &Path, name: &str, service: &str, broker: &str) -> Vec<(String, String)> {
        let prefix = format!("{}_", service.to_uppercase().replace('-', "_"));
        let state = match &self.state_of {
            Some((other, elsewhere)) if other == name => elsewhere.join("state"),
            Some(_) | None => dir.join(format!("{name}-state")),
        };
        let mut env = vec![
            (format!("{prefix}MQTT_ADDRESS"), broker.to_owned()),
            (format!("{prefix}STATE_DIR"), state.display().to_string()),
        ];
        let is_its = |key: &str| key.starts_with(&prefix) || key.starts_with("OTEL_");
        env.extend(self.env.iter().filter(|(key, _)| is_its(key)).cloned());
        env
    }
}

impl Stack {
    /// The operator, when everybody is there: all proplets alive at the manager, model 0 shown.
    #[track_caller]
    pub fn operator(&self) -> Operator {
        let operator = Operator::connect(self.field().port());
        self.http.wait_for_alive(self.proplets.len());
        operator.peer().wait_for("fl/models/latest");
        operator
    }

    /// Waits until the manager knows of all proplets what they can. What one said before the
    /// manager was there for the first time it says again when it connects anew.
    #[track_caller]
    pub fn wait_until_introduced(&mut self) {
        self.http.wait_for_alive(self.proplets.len());
        let http = self.http;
        for proplet in &mut self.proplets {
            let name = proplet.name().to_owned();
            if !http.has_heard_of(&name) {
                proplet.kill();
                proplet.start_again();
            }
            eventually(&format!("the manager has heard of {name}"), || {
                http.has_heard_of(&name).then_some(())
            });
        }
    }

    /// The broker of the proplets and the operator.
    pub fn field(&self) -> &Broker {
        self.brokers.last().expect("there is a broker")
    }

    /// Where all state and logs are.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// `kill -9`.
    pub fn kill(&mut self, victim: Victim) {
        match self.process(victim) {
            Some(process) => process.kill(),
            None => self.brokers[0].kill(),
        }
    }

    /// Starts a killed one again.
    #[track_caller]
    pub fn start_again(&mut self, victim: Victim) {
        match self.process(victim) {
            Some(process) => process.start_again(),
            None => self.brokers[0].start_again(),
        }
    }

    fn process(&mut self, victim: Victim) -> Option<&mut Process> {
        match victim {
            Victim::Broker => None,
            Victim::Manager => Some(&mut self.manager),
            Victim::Coordinator => Some(&mut self.coordinator),
            Victim::ModelServer => Some(&mut self.model_server),
            Victim::Proplet => self.proplets.first_mut(),
        }
    }
}

impl StoryDir {
    fn path(&self) -> &Path {
        self.0.as_ref().expect("the directory is there until the story ends").path()
    }
}

impl Drop for StoryDir {
    fn drop(&mut self) {
        let Some(dir) = self.0.take() else { return };
        if std::thread::panicking() {
            say(&format!("logs and state are left in {}", dir.keep().display()));
        }
    }
}
