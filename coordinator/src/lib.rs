//! The coordinator service: runs rounds of federated training. Its core is `round`; this shell
//! gives it a broker, a disk, a clock and arithmetic.

mod config;
mod effects;
mod error;
mod tally;

use std::time::Duration;

use round::{Rounds, TABLES};
use service::{Driver, Reports, Store, SystemClock, Transport, drive, transport::mqtt::Mqtt};
use tokio_util::sync::CancellationToken;

pub use config::CoordinatorSettings;
pub use error::CoordinatorError;

use effects::Averaging;

/// How long a stopping coordinator goes on handing over what is queued.
const GRACE: Duration = Duration::from_secs(5);

/// Runs rounds until `stop` is cancelled. What is under way goes on at the next start.
pub async fn run(
    settings: CoordinatorSettings,
    stop: CancellationToken,
) -> Result<(), CoordinatorError> {
    let transport = Mqtt::connect(settings.transport()?);
    serve(&settings, transport, stop).await
}

/// As [`run`], over any transport.
pub async fn serve<T: Transport>(
    settings: &CoordinatorSettings,
    transport: T,
    stop: CancellationToken,
) -> Result<(), CoordinatorError> {
    let store = Store::open(&settings.state.state_dir, "coordinator", TABLES)?;
    let driver = Driver {
        machine: Rounds::new(settings.rules()),
        effects: Averaging::new(settings.strategy),
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
