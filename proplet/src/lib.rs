//! The edge agent's shell: it fetches programs, runs them in a sandbox and reports how they ended.

#![cfg_attr(
    not(feature = "compiler"),
    allow(dead_code, unreachable_pub, reason = "of what compiles, some is left out")
)]

mod canonical;
mod config;
mod effects;
pub mod executor;
pub mod fetch;
mod identity;
mod signing;
mod storage;
mod traces;
mod watching;

use std::{io, path::PathBuf, time::Duration};

use agent::{Agent, Report};
use http_api::Vitals;
use protocol::{
    Envelope, Letter as _, PropletId,
    message::{AliveStatus, PropletAlive},
};
use service::{
    DriveError, Driver, Figures, Inspected, Reports, Store, StoreError, SystemClock, Traces,
    Transport, drive, settings::SettingsError, transport::mqtt::Mqtt,
};
use tokio::{sync::mpsc, time};
use tokio_util::sync::CancellationToken;

pub use config::{ImagePull, ModulePolicy, PropletSettings};
pub use identity::IdentityError;
pub use storage::StorageError;

use effects::{Bench, Shell};
use signing::Signing;
use traces::RunTraces;
use watching::Watching;

/// How long running guests may take to end after they were told to.
const END_GRACE: Duration = Duration::from_secs(3);
/// How long the last words may take to reach the broker.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Why a proplet cannot start, or has to end.
#[derive(Debug, thiserror::Error)]
pub enum PropletError {
    #[error("data directory {path} cannot be read")]
    DataDir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("there is no executor")]
    NoExecutor,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Settings(Box<SettingsError>),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Vitals(#[from] http_api::OpenError),
    #[error(transparent)]
    Drive(#[from] DriveError),
}

impl From<SettingsError> for PropletError {
    fn from(why: SettingsError) -> Self {
        Self::Settings(Box::new(why))
    }
}

/// Runs one proplet until `stop` is cancelled. Running guests are then interrupted, and the broker
/// hears that the proplet is offline.
pub async fn run(settings: PropletSettings, stop: CancellationToken) -> Result<(), PropletError> {
    let proplet = Proplet::open(&settings)?;
    let mut config = settings.mqtt.config(proplet.id.as_str(), Some(proplet.last_will()))?;
    config.payload_bytes_max = config.payload_bytes_max.max(settings.message_bytes_max());
    let transport = Mqtt::connect(config);
    let mut figures = Figures::of_process();
    figures.watch(vec![("fleet", transport.traffic())]);
    let watching = Watching::new(&mut figures);
    let vitals = Vitals::new("proplet service", watching.standing.subscribe(), figures);
    let watching = watching.with_port(proplet.settings.vitals.open(vitals).await?);
    proplet.serve_with(transport, watching, stop).await
}

/// A proplet that has its name and its memory, but no way to the broker yet.
#[derive(Debug)]
pub struct Proplet {
    id: PropletId,
    settings: PropletSettings,
    store: Store,
}

impl Proplet {
    /// Takes possession of the state directory; a second proplet on the same one is refused.
    pub fn open(settings: &PropletSettings) -> Result<Self, PropletError> {
        if let Some(path) = &settings.data_dir {
            config::readable(path)
                .map_err(|source| PropletError::DataDir { path: path.clone(), source })?;
        }
        let state_dir = &settings.state.state_dir;
        let store = Store::open(state_dir, "proplet", agent::TABLES)?;
        let id = identity::identify(state_dir, settings.id.as_ref())?;
        Ok(Self { id, settings: settings.clone(), store })
    }

    /// Its name.
    pub const fn id(&self) -> &PropletId {
        &self.id
    }

    /// What the broker is to say if this process ends without a word.
    pub fn last_will(&self) -> Envelope {
        PropletAlive {
            proplet_id: self.id.clone(),
            status: AliveStatus::Offline,
            namespace: String::new(),
            tasks: None,
        }
        .seal()
    }

    /// Lives on `transport` until `stop` is cancelled.
    pub async fn serve(
        self,
        transport: impl Transport,
        stop: CancellationToken,
    ) -> Result<(), PropletError> {
        self.serve_with(transport, Watching::unseen(), stop).await
    }

    async fn serve_with(
        self,
        transport: impl Transport,
        watching: Watching,
        stop: CancellationToken,
    ) -> Result<(), PropletError> {
        let Self { id, settings, store } = self;
        let store = store.observed(watching.commits());
        let transport = Inspected::new(transport, Signing(settings.signing_key()?));
        let limits = settings.mqtt.limits(id.as_str()).await?;
        let traces =
            RunTraces::new(Traces::of("proplet", &settings.mqtt.client_id_or(id.as_str())));
        // Before it is signed: what an update says of its trace is signed, too.
        let transport = Inspected::new(transport, traces.inspector(limits.message_bytes_max));
        let entry = executor::EXECUTORS.first().ok_or(PropletError::NoExecutor)?;
        let bench = Bench {
            executor: (entry.build)(&settings.executor(&limits)),
            fetch: settings.fetch(),
            limits: settings.limits(),
            data_dir: settings.data_dir.clone(),
            storage: settings.storage(limits)?,
            signers: settings.signers()?,
        };
        let agent = Agent::new(settings.agent(&id, &limits));
        tracing::info!(proplet = %id, "proplet starts");
        let reports = Reports::new();
        let over = CancellationToken::new();
        let _farewell = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(farewell(
            stop,
            reports.sender(),
            over.clone(),
        )));
        let effects = Shell::new(
            bench,
            transport.gate(),
            (watching, traces.clone()),
            (reports.sender(), over.clone()),
        );
        let driver =
            Driver { machine: agent, effects, transport, store, clock: SystemClock, reports };
        let left = drive(driver, over).await?;
        let Driver { transport, effects, store, .. } = left;
        drop(effects);
        transport.close(CLOSE_GRACE).await;
        traces.close().await;
        drop(store);
        tracing::info!(proplet = %id, "proplet has ended");
        Ok(())
    }
}

/// Tells the agent to come to an end, and ends it if that takes too long.
async fn farewell(stop: CancellationToken, reports: mpsc::Sender<Report>, over: CancellationToken) {
    stop.cancelled().await;
    // The queue may be full, too: a disk that takes no writes holds everything back.
    let end = async {
        let _ = reports.send(Report::Shutdown).await;
        over.cancelled().await;
    };
    if time::timeout(END_GRACE, end).await.is_err() {
        tracing::warn!("not everything ended in time");
        over.cancel();
    }
}
