//! The manager service: tasks to proplets, updates to the coordinator, and an HTTP API. Its core
//! is `fleet`; this shell gives it a broker, a disk, a clock and a port. It knows no federated
//! learning.

mod api;
mod config;
mod effects;
mod error;
mod images;
mod status;
mod timings;
mod traces;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, time::Duration};

use fleet::{Fleet, Limits, TABLES};
use http_api::{Counted, Listening, asked};
use service::{
    Driver, Figures, Reports, Store, SystemClock, Traces, Transport, drive,
    settings::Settings as _, transport::mqtt::Mqtt,
};
use tokio::{sync::oneshot, task::JoinHandle, time};
use tokio_util::sync::CancellationToken;

pub use config::{ImageDelivery, ManagerSettings};
pub use error::ManagerError;

use effects::{Caller, Desk};
use images::Images;
use timings::Timings;
use traces::TaskTraces;

/// How long a stopping manager goes on handing over what is queued.
const GRACE: Duration = Duration::from_secs(5);

/// Serves proplets and callers until `stop` is cancelled.
pub async fn run(settings: ManagerSettings, stop: CancellationToken) -> Result<(), ManagerError> {
    let (ready, _) = oneshot::channel();
    run_with(settings, stop, ready).await
}

/// As [`run`]; says on `ready` where the HTTP API listens, once it does.
pub async fn run_with(
    settings: ManagerSettings,
    stop: CancellationToken,
    ready: oneshot::Sender<SocketAddr>,
) -> Result<(), ManagerError> {
    let config = settings.transport()?;
    let store = Store::open(&settings.state.state_dir, "manager", TABLES)?;
    let listening = Listening::bind(settings.http_address()).await?.with_tls(settings.guard.tls()?);
    settings.guard.say_who_may_call(listening.address());
    let transport = Mqtt::connect(config);
    let mut figures = Figures::of_process();
    figures.watch(vec![("fleet", transport.traffic())]);
    serve(settings, listening, transport, (store, figures), (stop, ready)).await
}

/// The manager between an open port, a transport and a store.
async fn serve<T: Transport>(
    settings: ManagerSettings,
    listening: Listening,
    transport: T,
    (store, mut figures): (Store, Figures),
    (stop, ready): (CancellationToken, oneshot::Sender<SocketAddr>),
) -> Result<(), ManagerError> {
    let reports = Reports::<Fleet<Caller>>::new();
    let commits = figures.seconds("aileron_commit_seconds", "Writing a batch to the state file");
    let store = store.observed(commits);
    let images = Images::new(settings.registries(), settings.upload_bytes_max);
    let service = ManagerSettings::SERVICE;
    let traces = Traces::of(service, &settings.mqtt.client_id_or(service));
    let watching = (Timings::new(&mut figures), TaskTraces::new(traces.clone()));
    let (desk, status) = Desk::new(transport.gate(), images, watching);
    let limits = settings.limits(settings.mqtt.limits(service).await?);
    let address = listening.address();
    let router =
        api::router(reports.sender(), (status, Counted::new(figures)), settings.upload_len_max());
    let router = asked(router, settings.guard.callers()?);
    let closing = CancellationToken::new();
    let http = tokio::spawn(listening.serve(router, closing.clone()));
    let driver = Driver {
        machine: Fleet::new(Limits { keeps_spans: traces.is_on(), ..limits }),
        effects: desk,
        transport,
        store,
        clock: SystemClock,
        reports,
    };
    tracing::info!(%address, "manager started, its HTTP API listens");
    // Nobody may be waiting for it.
    let _ = ready.send(address);
    let driven = drive(driver, stop).await;
    closing.cancel();
    let closed = match driven {
        Ok(driver) => {
            // Callers that still wait for an answer are told that there will be none.
            let Driver { transport, .. } = driver;
            transport.close(GRACE).await;
            traces.close().await;
            Ok(())
        }
        Err(why) => Err(why.into()),
    };
    finish(http).await;
    tracing::info!("manager stopped");
    closed
}

/// Lets answers that are on their way go out.
async fn finish(mut http: JoinHandle<()>) {
    if time::timeout(GRACE, &mut http).await.is_err() {
        http.abort();
        tracing::warn!("gave up on HTTP connections that did not end");
    }
}
