//! The model server: the one writer of model files, and the one voice that publishes them. Its core
//! is `lineage`; this shell gives it a broker and a directory.

mod config;
mod effects;
mod error;
mod pieces;
mod shelf;
mod traces;
mod watching;

use std::time::Duration;

use http_api::Vitals;
use lineage::{Lines, TABLES};
use service::{
    BlobRules, Blobs, Driver, Figures, Inspected, Reports, Store, SystemClock, Traces, Transport,
    drive, settings::Settings as _, transport::mqtt::Mqtt,
};
use tokio_util::sync::CancellationToken;

pub use config::{InitialModel, ModelServerSettings};
pub use error::ModelServerError;

use effects::{Librarian, Library};
use traces::ModelTraces;
use watching::Watching;

/// Where models are put together that come in pieces, in the state directory.
const INCOMING: &str = "incoming";
/// How long a stopping model server goes on handing over what is queued.
const GRACE: Duration = Duration::from_secs(5);

/// Stores and publishes models until `stop` is cancelled.
pub async fn run(
    settings: ModelServerSettings,
    stop: CancellationToken,
) -> Result<(), ModelServerError> {
    let transport = Mqtt::connect(settings.transport()?);
    let mut figures = Figures::of_process();
    figures.watch(vec![("models", transport.traffic())]);
    let watching = Watching::new(&mut figures);
    let vitals = Vitals::new("model server service", watching.standing.subscribe(), figures);
    let watching = watching.with_port(settings.vitals.open(vitals).await?);
    serve_with(&settings, transport, watching, stop).await
}

/// As [`run`], over any transport.
pub async fn serve<T: Transport>(
    settings: &ModelServerSettings,
    transport: T,
    stop: CancellationToken,
) -> Result<(), ModelServerError> {
    serve_with(settings, transport, Watching::unseen(), stop).await
}

async fn serve_with<T: Transport>(
    settings: &ModelServerSettings,
    transport: T,
    watching: Watching,
    stop: CancellationToken,
) -> Result<(), ModelServerError> {
    let dir = &settings.state.state_dir;
    let store = Store::open(dir, "model-server", TABLES)?.observed(watching.commits());
    let limits = settings.mqtt.limits(ModelServerSettings::SERVICE).await?;
    let bytes_max = settings.model_bytes_max;
    let blobs = Blobs::open(&dir.join(INCOMING), BlobRules { bytes_max })?;
    let service = ModelServerSettings::SERVICE;
    let traces = Traces::of(service, &settings.mqtt.client_id_or(service));
    let traces = ModelTraces::new(traces);
    let transport = Inspected::new(transport, traces.clone());
    let library = Library { dir: dir.clone(), blobs, limits };
    let driver = Driver {
        machine: Lines::new(settings.rules(limits), settings.initial(limits)),
        effects: Librarian::new(library, transport.gate(), (watching, traces.clone())),
        transport,
        store,
        clock: SystemClock,
        reports: Reports::new(),
    };
    tracing::info!(dir = %dir.display(), "model server started");
    let driver = drive(driver, stop).await?;
    driver.effects.finish().await;
    driver.transport.close(GRACE).await;
    traces.close().await;
    tracing::info!("model server stopped");
    Ok(())
}
