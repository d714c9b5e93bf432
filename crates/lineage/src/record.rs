//! The durable form of what is known about each version.

use protocol::{Digest, Entry, EntryError, ModelVersion};
use serde::{Deserialize, Serialize};

/// The tables of the model server's entries.
pub const TABLES: &[&str] = &[MODEL];

const MODEL: &str = "model";

/// A version that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) digest: Digest,
    pub(crate) len: u64,
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: ModelVersion,
    sha256: Digest,
    bytes: u64,
}

pub(crate) fn keep(version: ModelVersion, stored: Stored) -> Entry {
    Entry::put(MODEL, version, &Record { version, sha256: stored.digest, bytes: stored.len })
}

pub(crate) fn read(entry: &Entry) -> Result<Option<(ModelVersion, Stored)>, EntryError> {
    let record: Option<Record> = entry.read()?;
    Ok(record
        .map(|Record { version, sha256, bytes }| (version, Stored { digest: sha256, len: bytes })))
}
