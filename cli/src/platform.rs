//! A whole platform in one process: broker, manager, coordinator, model server and proplets, joined
//! by nothing but MQTT.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use broker::{BrokerConfig, RunningBroker};
use service::settings::{Environment, Resolved, Settings, resolve};
use tokio::{sync::oneshot, task::JoinSet, time};
use tokio_util::sync::CancellationToken;

/// How long services have to say goodbye.
const GRACE: Duration = Duration::from_secs(10);

/// What is to run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Everything the platform writes goes below this directory.
    pub(crate) dir: PathBuf,
    /// Settings file for all services.
    pub(crate) config: Option<PathBuf>,
    /// An outside broker; the embedded one if absent.
    pub(crate) mqtt_address: Option<String>,
    /// Where the embedded broker listens.
    pub(crate) broker_listen: SocketAddr,
    pub(crate) http_port: u16,
    pub(crate) coordinator_http_port: u16,
    /// Model 0; the model server's default if absent.
    pub(crate) model_file: Option<PathBuf>,
    pub(crate) proplets: Vec<PropletPlan>,
}

/// One proplet of the platform.
#[derive(Clone, Debug)]
pub(crate) struct PropletPlan {
    pub(crate) id: String,
    pub(crate) data_dir: Option<PathBuf>,
}

/// A running platform. It ends with [`Platform::stop`].
#[derive(Debug)]
pub(crate) struct Platform {
    broker: Option<RunningBroker>,
    services: JoinSet<(String, anyhow::Result<()>)>,
    stop: CancellationToken,
    /// Where the broker is, as a service's setting.
    pub(crate) mqtt_address: String,
    /// Where the manager's HTTP API is.
    pub(crate) http: SocketAddr,
    /// Where the coordinator's is.
    pub(crate) coordinator_http: SocketAddr,
}

impl Plan {
    /// Starts everything; what had started is stopped again if something does not.
    pub(crate) async fn start(self) -> anyhow::Result<Platform> {
        let (broker, mqtt_address) = match &self.mqtt_address {
            Some(address) => (None, address.clone()),
            None => {
                let running = self.broker().await?;
                let address = format!("tcp://{}", running.address());
                (Some(running), address)
            }
        };
        let mut platform = Platform {
            broker,
            services: JoinSet::new(),
            stop: CancellationToken::new(),
            mqtt_address,
            http: SocketAddr::from(([127, 0, 0, 1], 0)),
            coordinator_http: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        match self.services(&mut platform).await {
            Ok((http, coordinator_http)) => {
                platform.http = http;
                platform.coordinator_http = coordinator_http;
                Ok(platform)
            }
            Err(why) => {
                platform.stop().await;
                Err(why)
            }
        }
    }

    /// In memory: the services say again whatever a broker has forgotten.
    async fn broker(&self) -> anyhow::Result<RunningBroker> {
        let config = BrokerConfig { listen: self.broker_listen, ..BrokerConfig::default() };
        broker::start(config).await.context("start the embedded broker")
    }

    async fn services(&self, platform: &mut Platform) -> anyhow::Result<(SocketAddr, SocketAddr)> {
        let manager = self.settings::<manager::ManagerSettings>(
            platform,
            "manager",
            &[("--http-port", &self.http_port.to_string())],
        )?;
        let coordinator = self.settings::<coordinator::CoordinatorSettings>(
            platform,
            "coordinator",
            &[("--http-port", &self.coordinator_http_port.to_string())],
        )?;
        let model_file = self.model_file.as_ref().map(|path| path.display().to_string());
        let model_flags: Vec<_> =
            model_file.iter().map(|path| ("--model-file", path.as_str())).collect();
        let model_server = self.settings::<model_server::ModelServerSettings>(
            platform,
            "model-server",
            &model_flags,
        )?;
        let (ready, http) = oneshot::channel();
        let (rounds_ready, rounds_http) = oneshot::channel();
        platform.spawn("manager", |stop| manager::run_with(manager, stop, ready));
        platform
            .spawn("coordinator", |stop| coordinator::run_with(coordinator, stop, rounds_ready));
        platform.spawn("model-server", |stop| model_server::run(model_server, stop));
        // What one of them has compiled, all can run.
        let compiled = self.dir.join("compiled").display().to_string();
        for plan in &self.proplets {
            let data_dir = plan.data_dir.as_ref().map(|path| path.display().to_string());
            let mut flags = vec![("--id", plan.id.as_str()), ("--cache-dir", &compiled)];
            flags.extend(data_dir.iter().map(|path| ("--data-dir", path.as_str())));
            let settings = self.settings::<proplet::PropletSettings>(platform, &plan.id, &flags)?;
            platform.spawn(&plan.id, |stop| proplet::run(settings, stop));
        }
        let addresses = async { tokio::try_join!(http, rounds_http) };
        tokio::select! {
            Ok(addresses) = addresses => Ok(addresses),
            why = platform.ended() => Err(why),
        }
    }

    /// A service's settings: ours over the user's file and environment.
    fn settings<S: Settings>(
        &self,
        platform: &Platform,
        name: &str,
        flags: &[(&str, &str)],
    ) -> anyhow::Result<S> {
        let state_dir = self.dir.join(name).display().to_string();
        let mut words: Vec<OsString> = vec![];
        let own = [("--mqtt-address", platform.mqtt_address.as_str()), ("--state-dir", &state_dir)];
        for (flag, value) in own.iter().chain(flags) {
            words.push(format!("{flag}={value}").into());
        }
        if let Some(config) = &self.config {
            words.extend(["--config".into(), config.into()]);
        }
        match resolve::<S>(&words, &Environment::of_process())? {
            Resolved::Run(settings) => Ok(settings),
            Resolved::Print(text) => bail!("unexpected answer from the settings of {name}: {text}"),
        }
    }
}

impl Platform {
    fn spawn<E, F>(&mut self, name: &str, run: impl FnOnce(CancellationToken) -> F)
    where
        E: std::error::Error + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let name = name.to_owned();
        let running = run(self.stop.child_token());
        self.services.spawn(async move { (name, running.await.map_err(anyhow::Error::from)) });
    }

    /// Waits until a service ends by itself, which none should; says which and why.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        match self.services.join_next().await {
            Some(Ok((name, Ok(())))) => anyhow!("{name} has stopped"),
            Some(Ok((name, Err(why)))) => why.context(name),
            Some(Err(why)) => anyhow!(why).context("a service broke down"),
            None => anyhow!("no service is running"),
        }
    }

    /// Stops the services, then the broker, so that goodbyes are heard.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let all = async { while self.services.join_next().await.is_some() {} };
        if time::timeout(GRACE, all).await.is_err() {
            tracing::warn!("services did not stop in {} s and are cut off", GRACE.as_secs());
            self.services.shutdown().await;
        }
        if let Some(broker) = self.broker {
            broker.stop().await;
        }
    }
}

/// Makes `proplet-1` to `proplet-n`, each with a data directory of its own if `data` is given.
pub(crate) fn fleet(n: usize, data: Option<&Path>) -> Vec<PropletPlan> {
    (1..=n)
        .map(|i| {
            let id = format!("proplet-{i}");
            let data_dir = data.map(|dir| dir.join(&id));
            PropletPlan { id, data_dir }
        })
        .collect()
}
