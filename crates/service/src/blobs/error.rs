//! What can go wrong with blobs.

use std::{
    io,
    path::{Path, PathBuf},
};

use protocol::{
    Digest,
    manifest::{ChunkError, ManifestError},
};

/// Why a blob could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("{action} {path}: {source}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no room for {needed} bytes: {in_use} of {bytes_max} are in use")]
    Full { needed: u64, in_use: u64, bytes_max: u64 },
    #[error("blob {sha256} was not begun")]
    NotBegun { sha256: Digest },
    #[error("blob {sha256} is not here")]
    Missing { sha256: Digest },
    #[error("{have} of {count} chunks of blob {sha256} are here")]
    Incomplete { sha256: Digest, have: u32, count: u32 },
    #[error("blob {expected} has digest {found}")]
    Digest { expected: Digest, found: Digest },
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl BlobError {
    /// Whether more room would help.
    pub fn is_lack_of_room(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::FileTooLarge
            ),
            Self::NotBegun { .. }
            | Self::Missing { .. }
            | Self::Incomplete { .. }
            | Self::Digest { .. }
            | Self::Chunk(_)
            | Self::Manifest(_) => false,
        }
    }
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |source| BlobError::Io { action, path, source }
}
