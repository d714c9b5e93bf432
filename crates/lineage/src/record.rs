//! The durable form of what is known about each version.

use protocol::{Digest, Entry, EntryError, Form, Manifest, ModelVersion};
use serde::{Deserialize, Serialize};

/// The tables of the model server's entries.
pub const TABLES: &[&str] = &[MODEL, INCOMING, SHOWN];

const MODEL: &str = "model";
/// The one that is coming in pieces.
const INCOMING: &str = "incoming";
/// Those whose pieces stand at the broker.
const SHOWN: &str = "shown";

/// A version that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) digest: Digest,
    pub(crate) len: u64,
    pub(crate) form: Form,
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: ModelVersion,
    sha256: Digest,
    bytes: u64,
    #[serde(default)]
    form: Form,
}

#[derive(Serialize, Deserialize)]
struct Incoming {
    version: ModelVersion,
    manifest: Manifest,
}

#[derive(Serialize, Deserialize)]
struct Shown {
    version: ModelVersion,
    count: u32,
}

pub(crate) fn keep(version: ModelVersion, stored: Stored) -> Entry {
    let Stored { digest, len, form } = stored;
    Entry::put(MODEL, version, &Record { version, sha256: digest, bytes: len, form })
}

/// The manifest of the version that comes in pieces.
pub(crate) fn fetch(version: ModelVersion, manifest: &Manifest) -> Entry {
    Entry::put(INCOMING, "it", &Incoming { version, manifest: manifest.clone() })
}

pub(crate) fn fetched() -> Entry {
    Entry::forget(INCOMING, "it")
}

pub(crate) fn show(version: ModelVersion, count: u32) -> Entry {
    Entry::put(SHOWN, version, &Shown { version, count })
}

pub(crate) fn hide(version: ModelVersion) -> Entry {
    Entry::forget(SHOWN, version)
}

pub(crate) fn read_incoming(entry: &Entry) -> Result<Option<(ModelVersion, Manifest)>, EntryError> {
    if entry.table != INCOMING {
        return Ok(None);
    }
    let record: Option<Incoming> = entry.read()?;
    Ok(record.map(|Incoming { version, manifest }| (version, manifest)))
}

pub(crate) fn read_shown(entry: &Entry) -> Result<Option<(ModelVersion, u32)>, EntryError> {
    if entry.table != SHOWN {
        return Ok(None);
    }
    let record: Option<Shown> = entry.read()?;
    Ok(record.map(|Shown { version, count }| (version, count)))
}

pub(crate) fn read(entry: &Entry) -> Result<Option<(ModelVersion, Stored)>, EntryError> {
    if entry.table != MODEL {
        return Ok(None);
    }
    let record: Option<Record> = entry.read()?;
    Ok(record.map(|Record { version, sha256, bytes, form }| {
        (version, Stored { digest: sha256, len: bytes, form })
    }))
}
