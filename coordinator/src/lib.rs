//! The coordinator service: runs rounds of federated training. Its core is `round`; this shell
//! gives it a broker, a disk, a clock and arithmetic.

mod config;
mod effects;
mod error;
mod sessions;
mod signatures;
mod storage;
mod streaming;
mod tally;

use std::time::Duration;

use round::{Rounds, TABLES};
use service::{
    Driver, Reports, Store, SystemClock, Transport, drive, settings::Settings,
    transport::mqtt::Mqtt,
};
use tokio_util::sync::CancellationToken;

pub use config::CoordinatorSettings;
pub use error::CoordinatorError;
pub use signatures::Demand;

use effects::Averaging;
use signatures::Verifying;
use storage::Storage;

/// Where updates and models lie that are too large for one message, in the state directory.
const BLOBS: &str = "blobs";
/// How long a stopping coordinator goes on handing over what is queued.
const GRACE: Duration = Duration::from_secs(5);

/// Runs rounds until `stop` is cancelled. What is under way goes on at the next start.
pub async fn run(
    settings: CoordinatorSettings,
    stop: CancellationToken,
) -> Result<(), CoordinatorError> {
    let transport = Mqtt::connect(settings.transport()?);
    let meeting = Mqtt::connect(settings.sessions_transport()?);
    // Where the one gives up, the other stops, too.
    let stop = stop.child_token();
    let rounds = until_end(serve(&settings, transport, stop.clone()), &stop);
    let sessions = until_end(sessions::serve(&settings, meeting, stop.clone()), &stop);
    let (rounds, sessions) = tokio::join!(rounds, sessions);
    rounds.and(sessions)
}

async fn until_end(
    serving: impl Future<Output = Result<(), CoordinatorError>>,
    stop: &CancellationToken,
) -> Result<(), CoordinatorError> {
    let result = serving.await;
    stop.cancel();
    result
}

/// As [`run`], over any transport.
pub async fn serve<T: Transport>(
    settings: &CoordinatorSettings,
    transport: T,
    stop: CancellationToken,
) -> Result<(), CoordinatorError> {
    let transport = Verifying::new(transport, settings.signatures()?);
    let store = Store::open(&settings.state.state_dir, "coordinator", TABLES)?;
    let limits = settings.mqtt.limits(<CoordinatorSettings as Settings>::SERVICE).await?;
    let blobs = settings.state.state_dir.join(BLOBS);
    let storage = Storage::open(&blobs, settings.blob_bytes_max, limits)?;
    let driver = Driver {
        machine: Rounds::new(settings.rules()),
        effects: Averaging::new(settings.strategy, storage, transport.gate())?,
        transport,
        store,
        clock: SystemClock,
        reports: Reports::new(),
    };
    tracing::info!(strategy = settings.strategy.name, "coordinator started");
    let driver = drive(driver, stop).await?;
    driver.transport.close(GRACE).await;
    tracing::info!(tally = %driver.effects.tally(), "coordinator stopped");
    Ok(())
}
