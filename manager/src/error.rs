//! Why a manager cannot run.

use service::{DriveError, StoreError, settings::SettingsError};

/// Why a manager did not start, or gave up.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Listen(#[from] http_api::ListenError),
    #[error(transparent)]
    Drive(#[from] DriveError),
}
