//! What the model server wants done with its files, and what comes of it.

use bytes::Bytes;
use protocol::{Digest, Form, Manifest, ModelVersion};
use transfer::{Bitmap, Failure, Refusal as ChunkRefusal};

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
    /// Make ready for the pieces of a model, and say which are there.
    BeginBlob { manifest: Manifest },
    /// Write a piece in its place.
    StoreChunk { manifest: Manifest, index: u32, bytes: Bytes },
    /// Check the whole, and make it this version's file, durably; whatever else stands there is
    /// moved aside first.
    FinishBlob { version: ModelVersion, manifest: Manifest },
    /// Nobody goes on with this one.
    DropBlob { manifest: Manifest },
    /// Say what this version's file consists of, in pieces that the broker takes.
    Survey { version: ModelVersion },
    /// Read a piece of this version's file, when the broker keeps up.
    ReadChunk { version: ModelVersion, manifest: Manifest, index: u32 },
    /// Log and count this.
    Note(Note),
}

/// What came of an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    Scanned(Vec<Found>),
    ScanFailed {
        error: String,
    },
    Written {
        version: ModelVersion,
    },
    WriteFailed {
        version: ModelVersion,
        error: String,
    },
    Loaded {
        version: ModelVersion,
        content: Result<(Bytes, Digest), String>,
    },
    BlobBegun {
        sha256: Digest,
        content: Result<Bitmap, String>,
    },
    ChunkStored {
        sha256: Digest,
        index: u32,
        result: Result<(), String>,
    },
    BlobFinished {
        version: ModelVersion,
        form: Form,
    },
    /// The disk did not take it; that can change.
    FinishFailed {
        version: ModelVersion,
        error: String,
    },
    /// The whole is no model, or not what was offered.
    BlobBad {
        version: ModelVersion,
        what: String,
    },
    Surveyed {
        version: ModelVersion,
        content: Result<Manifest, String>,
    },
    /// The broker's limit leaves no way to cut this version into pieces.
    Unshowable {
        version: ModelVersion,
        why: String,
    },
    ChunkRead {
        version: ModelVersion,
        index: u32,
        content: Result<Bytes, String>,
    },
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
    /// From its name.
    pub form: Form,
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
    /// A model begins to come in pieces, or goes on after a restart.
    Fetching {
        version: ModelVersion,
        len: u64,
        chunks: u32,
    },
    FetchFailed {
        version: ModelVersion,
        why: Failure,
    },
    /// A model that came in pieces is none; it was thrown away.
    FetchedBad {
        version: ModelVersion,
        what: String,
    },
    /// A piece of a model was not taken.
    ChunkRefused {
        version: ModelVersion,
        index: u32,
        why: ChunkRefusal,
    },
    /// A model is too large for what the broker takes.
    Unshowable {
        version: ModelVersion,
        why: String,
    },
    /// All pieces of a model are with the broker.
    Shown {
        version: ModelVersion,
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
        len: u64,
        len_max: u64,
    },
    /// Too many are waiting to be written; it will be offered again.
    Busy,
    /// It would begin one line more than there may be.
    TooManyLines,
}
