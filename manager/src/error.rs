//! Why a manager cannot run.

use std::{io, net::SocketAddr};

use service::{DriveError, StoreError, settings::SettingsError};

/// Why a manager did not start, or gave up.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("listen for HTTP on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Drive(#[from] DriveError),
}
