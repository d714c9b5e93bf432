//! Why a model server cannot run.

use service::{BlobError, DriveError, StoreError, settings::SettingsError};

/// Why a model server did not start, or gave up.
#[derive(Debug, thiserror::Error)]
pub enum ModelServerError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
    #[error(transparent)]
    Vitals(#[from] http_api::OpenError),
    #[error(transparent)]
    Drive(#[from] DriveError),
}
