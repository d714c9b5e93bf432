//! Processes that are measured: a broker, the services, and the directory they live in.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// Settings of the platform that the environment may hold.
const SETTINGS: &[&str] =
    &["AILERON_", "MANAGER_", "COORDINATOR_", "MODEL_SERVER_", "PROPLET_", "BROKER_"];
const START_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// Which broker is between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum BrokerKind {
    /// `mosquitto` from the search path, as its defaults have it, in memory.
    Mosquitto,
    /// The one that `aileron broker` starts, in memory.
    Embedded,
}

/// What every bench with processes is told.
#[derive(Clone, Debug, Args)]
pub(super) struct StageArgs {
    /// Broker
    #[arg(long, value_enum, default_value_t = BrokerKind::Embedded)]
    pub(super) broker: BrokerKind,
    /// One more line for mosquitto.conf, like "set_tcp_nodelay true"
    #[arg(long, value_name = "LINE")]
    mosquitto_conf: Vec<String>,
    /// Program whose services are measured; this one if left out
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Directory for the state of all services, which must not exist; a temporary one if left out
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// The directory and what runs in it. Everything ends, and the directory goes, when it is dropped.
#[derive(Debug)]
pub(super) struct Stage {
    processes: Vec<Process>,
    program: PathBuf,
    dir: PathBuf,
    failed: bool,
    /// Where the broker listens.
    pub(super) broker: SocketAddr,
}

#[derive(Debug)]
struct Process {
    name: String,
    child: Child,
}

impl Stage {
    /// Makes the directory and starts the broker.
    pub(super) async fn open(args: &StageArgs) -> anyhow::Result<Self> {
        let program = match &args.program {
            Some(program) => fs::canonicalize(program)
                .with_context(|| format!("program {}", program.display()))?,
            None => std::env::current_exe().context("find this program")?,
        };
        let dir = args.dir.clone().unwrap_or_else(|| {
            std::env::temp_dir().join(format!("aileron-bench-{}", uuid::Uuid::new_v4().simple()))
        });
        fs::create_dir(&dir).with_context(|| format!("make directory {}", dir.display()))?;
        let dir = fs::canonicalize(dir)?;
        let broker = free_port()?;
        let mut stage = Self { processes: vec![], program, dir, failed: true, broker };
        match args.broker {
            BrokerKind::Mosquitto => stage.mosquitto(&args.mosquitto_conf)?,
            BrokerKind::Embedded => {
                stage.aileron("broker", &["broker", "--listen", &broker.to_string()])?;
            }
        }
        stage.until("the broker listens", || TcpStream::connect(broker).is_ok()).await?;
        Ok(stage)
    }

    fn mosquitto(&mut self, lines: &[String]) -> anyhow::Result<()> {
        let conf = self.dir.join("mosquitto.conf");
        let port = self.broker.port();
        // It would drop its rights to a user who cannot read here. Its queues are as long as it
        // takes, since nothing of what is measured may be thrown away.
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n\
             max_queued_messages 0\nmax_inflight_messages 0\n{}\n",
            lines.join("\n")
        );
        fs::write(&conf, text)?;
        self.start("broker", Path::new("mosquitto"), &["-c", &conf.display().to_string()])
    }

    /// Starts manager, coordinator and model server, the last with this model, and says where the
    /// manager's HTTP API is.
    pub(super) fn services(&mut self, model: &Value) -> anyhow::Result<String> {
        fs::write(self.path("model.json"), model.to_string())?;
        let (broker, http) = (format!("tcp://{}", self.broker), free_port()?);
        let model_file = format!("--model-file={}", self.path("model.json"));
        let port = format!("--http-port={}", http.port());
        let own = [("manager", port.as_str()), ("coordinator", "--http-port=0")];
        for (name, own) in own.into_iter().chain([("model-server", model_file.as_str())]) {
            let state = self.path(name);
            self.aileron(name, &[name, "--mqtt-address", &broker, "--state-dir", &state, own])?;
        }
        Ok(format!("http://{http}"))
    }

    /// Starts a service of the program that is measured.
    pub(super) fn aileron(&mut self, name: &str, words: &[&str]) -> anyhow::Result<()> {
        self.start(name, &self.program.clone(), words)
    }

    fn start(&mut self, name: &str, program: &Path, words: &[&str]) -> anyhow::Result<()> {
        let log = File::create(self.dir.join(format!("{name}.log")))?;
        // Where there is setpriv, nothing is left behind even if this process is killed.
        let mut command = match has_setpriv() {
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL", "--"]).arg(program);
                command
            }
            false => Command::new(program),
        };
        for (variable, _) in std::env::vars_os() {
            if SETTINGS.iter().any(|prefix| variable.to_string_lossy().starts_with(prefix)) {
                command.env_remove(&variable);
            }
        }
        command.args(words).current_dir(&self.dir).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        self.processes.push(Process { name: name.to_owned(), child });
        Ok(())
    }

    /// A path in the directory, as a setting.
    pub(super) fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Waits until something holds; an error if a process ends first, or if it takes too long.
    pub(super) async fn until(
        &mut self,
        what: &str,
        mut holds: impl FnMut() -> bool,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        while !holds() {
            self.check()?;
            ensure!(
                began.elapsed() < START_MAX,
                "waited {} s until {what}; logs are in {}",
                START_MAX.as_secs(),
                self.dir.display()
            );
            sleep(POLL).await;
        }
        Ok(())
    }

    /// An error if a process has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        let dir = self.dir.display().to_string();
        for Process { name, child } in &mut self.processes {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended with {status}; its log is {dir}/{name}.log");
            }
        }
        Ok(())
    }

    /// Resident memory of each process now and at most, in kB, where the system says.
    pub(super) fn memory(&self) -> Value {
        let figures = self.processes.iter().map(|Process { name, child }| {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id()));
            let status = status.unwrap_or_default();
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name))?;
                line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
            };
            json!({ "what": name, "now_kb": field("VmRSS:"), "peak_kb": field("VmHWM:") })
        });
        figures.collect()
    }

    /// All went well: the directory need not be kept for reading.
    pub(super) fn done(mut self) {
        self.failed = false;
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What they would still write lies in a directory that goes: there is nothing to wait for.
        for Process { child, .. } in self.processes.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if !self.failed {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// A port that was free a moment ago.
pub(super) fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr()?)
}

fn has_setpriv() -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|dir| dir.join("setpriv").is_file())
}
