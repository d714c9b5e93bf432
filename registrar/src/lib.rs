//! The registrar service: devices with a token for joining get a certificate from it, and the way
//! to the broker. It alone among the services can read the authority's key; it knows no tasks, no
//! rounds, and does not connect to the broker.

mod api;
mod config;
mod desk;

use std::time::Duration;

use access::AuthorityError;
use http_api::{ListenError, Listening};
use service::settings::SettingsError;
use tokio::time;
use tokio_util::sync::CancellationToken;

pub use config::RegistrarSettings;

use desk::Desk;

/// How long a stopping registrar goes on answering.
const GRACE: Duration = Duration::from_secs(5);

/// Why a registrar does not run.
#[derive(Debug, thiserror::Error)]
pub enum RegistrarError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Lets devices in until `stop` is cancelled.
pub async fn run(
    settings: RegistrarSettings,
    stop: CancellationToken,
) -> Result<(), RegistrarError> {
    let authority = settings.authority()?;
    let tls = settings.tls(&authority)?;
    let listening = Listening::bind(settings.http_address()).await?.with_tls(Some(tls));
    let address = listening.address();
    let fingerprint = authority.fingerprint()?;
    let desk = Desk::new(settings, authority)?;
    let mut http = tokio::spawn(listening.serve(api::router(desk), stop.clone()));
    tracing::info!(%address, authority = %fingerprint, "registrar started, it takes tokens for joining");
    stop.cancelled().await;
    if time::timeout(GRACE, &mut http).await.is_err() {
        http.abort();
        tracing::warn!("gave up on HTTP connections that did not end");
    }
    tracing::info!("registrar stopped");
    Ok(())
}
