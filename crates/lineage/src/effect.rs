//! What the model server wants done with its files, and what comes of it.

use bytes::Bytes;
use protocol::{Digest, ModelVersion};

/// Something for the shell. Effects on files are done one after the other, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Report every model file there is. The digest of a version below `unknown_from` is known,
    /// and says enough about it; later ones have to be looked into.
    Scan { unknown_from: ModelVersion },
    /// Move this version's file aside: it is damaged.
    Quarantine { version: ModelVersion },
    /// Write this version, durably and all at once; whatever else stands in its place is moved
    /// aside first.
    Write { version: ModelVersion, payload: Bytes },
    /// Report what this version's file holds.
    Load { version: ModelVersion },
    /// Log and count this.
    Note(Note),
}

/// What came of an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    Scanned(Vec<Found>),
    ScanFailed { error: String },
    Written { version: ModelVersion },
    WriteFailed { version: ModelVersion, error: String },
    Loaded { version: ModelVersion, content: Result<(Bytes, Digest), String> },
}

/// A model file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// From its name.
    pub version: ModelVersion,
    /// What is in it, or why that cannot be said.
    pub content: Result<FoundContent, String>,
}

/// The bytes of a model file, seen from afar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundContent {
    pub digest: Digest,
    pub len: u64,
    /// The version that the content claims, or why it is not a model, where it was looked into.
    pub claims: Option<Result<ModelVersion, String>>,
}

/// One thing that an operator may want to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The files were read: this many versions are there, this many are recorded and are not.
    Ready {
        intact: usize,
        damaged: usize,
        newest: Option<ModelVersion>,
    },
    ScanFailed {
        error: String,
    },
    /// A recorded version has no file.
    Missing {
        version: ModelVersion,
    },
    /// A file is not what was written; it was moved aside.
    Damaged {
        version: ModelVersion,
        what: String,
    },
    /// A file without a record was taken over: the process ended between writing and recording it.
    Adopted {
        version: ModelVersion,
    },
    /// A file without a record that does not continue the line is left alone.
    Stray {
        version: ModelVersion,
    },
    Written {
        version: ModelVersion,
        len: u64,
        digest: Digest,
    },
    WriteFailed {
        version: ModelVersion,
        error: String,
    },
    Refused {
        version: ModelVersion,
        why: Refusal,
    },
    Replayed {
        versions: usize,
    },
}

/// Why an offered model is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The version exists, with other bytes.
    Conflict,
    /// It is not the version after the newest.
    Gap {
        expected: ModelVersion,
    },
    TooLarge {
        len: usize,
        len_max: usize,
    },
    /// Too many are waiting to be written; it will be offered again.
    Busy,
}
