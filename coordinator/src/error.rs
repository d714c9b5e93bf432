//! Why a coordinator cannot run.

use service::{DriveError, StoreError, settings::SettingsError};

/// Why a coordinator did not start, or gave up.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Blobs(#[from] service::blobs::BlobError),
    #[error(transparent)]
    Listen(#[from] http_api::ListenError),
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
    #[error(transparent)]
    Drive(#[from] DriveError),
}
