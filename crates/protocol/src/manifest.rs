//! What a blob consists of: its digest and length, and those of its pieces, so that every piece can
//! be checked by itself, whoever it came from.

use std::{fmt, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Digest;

/// Most pieces of one blob.
pub const CHUNKS_MAX: u32 = 4096;
/// Shortest piece, the last one aside.
pub const CHUNK_BYTES_MIN: u32 = 1 << 10;
/// Longest piece.
pub const CHUNK_BYTES_MAX: u32 = 4 << 20;
/// Longest text of a manifest, with room for the message around it; a longer payload is none.
pub const MANIFEST_LEN_MAX: usize = 256 << 10;

const FORMAT_LEN_MAX: usize = 64;

/// A blob, taken apart. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Manifest {
    sha256: Digest,
    bytes: u64,
    chunk_bytes: u32,
    chunks: Arc<[Digest]>,
    format: Format,
}

/// What kind of bytes a blob is: 1 to 64 of `a-z 0-9 . + _ -`, like `safetensors`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Format(String);

/// Why something is not a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("a blob has at least one byte")]
    Empty,
    #[error("chunk_bytes is {0}, it takes {CHUNK_BYTES_MIN} to {CHUNK_BYTES_MAX}")]
    ChunkBytes(u32),
    #[error("{bytes} bytes take {chunks} chunks of {chunk_bytes}, at most {CHUNKS_MAX} are taken")]
    TooLarge { bytes: u64, chunk_bytes: u32, chunks: u64 },
    #[error("{bytes} bytes take {expected} chunks of {chunk_bytes}, {found} are listed")]
    Count { bytes: u64, chunk_bytes: u32, expected: u64, found: usize },
    #[error("chunks is not the base64 of digests of 32 bytes ({0} characters)")]
    Chunks(usize),
    #[error("{0:?} is not a format; it takes 1 to {FORMAT_LEN_MAX} of a-z 0-9 . + _ -")]
    Format(String),
}

/// Why some bytes are not the piece that they are said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum ChunkError {
    #[error("chunk {index} does not exist, there are {count}")]
    OutOfRange { index: u32, count: u32 },
    #[error("chunk {index} has {found} bytes, it takes {expected}")]
    Length { index: u32, found: usize, expected: usize },
    #[error("chunk {index} has other bytes than its manifest says")]
    Digest { index: u32 },
}

#[derive(Serialize, Deserialize)]
struct Wire {
    sha256: Digest,
    bytes: u64,
    chunk_bytes: u32,
    chunks: String,
    format: Format,
}

impl Manifest {
    /// A manifest of digests that are known already. [`ManifestBuilder`] makes them of bytes.
    pub fn new(
        sha256: Digest,
        bytes: u64,
        chunk_bytes: u32,
        chunks: Vec<Digest>,
        format: Format,
    ) -> Result<Self, ManifestError> {
        let expected = count(bytes, chunk_bytes)?;
        if chunks.len() != expected as usize {
            let (expected, found) = (expected.into(), chunks.len());
            return Err(ManifestError::Count { bytes, chunk_bytes, expected, found });
        }
        Ok(Self { sha256, bytes, chunk_bytes, chunks: chunks.into(), format })
    }

    /// The manifest of bytes that are in memory as a whole.
    pub fn of(bytes: &[u8], chunk_bytes: u32, format: Format) -> Result<Self, ManifestError> {
        let mut builder = ManifestBuilder::new(bytes.len() as u64, chunk_bytes, format)?;
        builder.push(bytes);
        builder.finish()
    }

    /// The digest of the whole.
    pub const fn sha256(&self) -> Digest {
        self.sha256
    }

    /// The length of the whole.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The length of every piece but the last.
    pub const fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    pub const fn format(&self) -> &Format {
        &self.format
    }

    /// How many pieces there are; at least one.
    pub fn count(&self) -> u32 {
        u32::try_from(self.chunks.len()).expect("checked when it was made")
    }

    /// Where a piece begins.
    pub fn offset(&self, index: u32) -> u64 {
        u64::from(index) * u64::from(self.chunk_bytes)
    }

    /// The length of a piece; 0 if there is none of that number.
    pub fn len_of(&self, index: u32) -> usize {
        let left = self.bytes.saturating_sub(self.offset(index));
        left.min(self.chunk_bytes.into()) as usize
    }

    /// The digest of a piece.
    pub fn digest_of(&self, index: u32) -> Option<Digest> {
        self.chunks.get(index as usize).copied()
    }

    /// Whether these bytes are that piece.
    pub fn check(&self, index: u32, bytes: &[u8]) -> Result<(), ChunkError> {
        let Some(digest) = self.digest_of(index) else {
            return Err(ChunkError::OutOfRange { index, count: self.count() });
        };
        let (found, expected) = (bytes.len(), self.len_of(index));
        if found != expected {
            return Err(ChunkError::Length { index, found, expected });
        }
        if Digest::of(bytes) != digest {
            return Err(ChunkError::Digest { index });
        }
        Ok(())
    }

    /// The digest of the manifest itself: two that name the same whole, but other pieces, differ.
    pub fn fingerprint(&self) -> Digest {
        let whole = [self.sha256.as_bytes(), &self.bytes.to_le_bytes()[..]];
        let chunk_bytes = self.chunk_bytes.to_le_bytes();
        let chunks = self.chunks.iter().map(|digest| &digest.as_bytes()[..]);
        Digest::of_parts(whole.into_iter().chain([&chunk_bytes[..]]).chain(chunks))
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sha256, bytes, chunk_bytes, chunks, format } = self;
        let (chunks, Format(format)) = (chunks.len(), format);
        write!(f, "Manifest({sha256}, {bytes} bytes of {format} in {chunks} x {chunk_bytes})")
    }
}

impl TryFrom<Wire> for Manifest {
    type Error = ManifestError;

    fn try_from(wire: Wire) -> Result<Self, ManifestError> {
        let bad = || ManifestError::Chunks(wire.chunks.len());
        // Before anything is decoded: no more than the largest manifest.
        count(wire.bytes, wire.chunk_bytes)?;
        if wire.chunks.len() > MANIFEST_LEN_MAX {
            return Err(bad());
        }
        let decoded = BASE64_STANDARD.decode(&wire.chunks).map_err(|_| bad())?;
        let (digests, rest) = decoded.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(bad());
        }
        let chunks = digests.iter().copied().map(Digest::from_bytes).collect();
        Self::new(wire.sha256, wire.bytes, wire.chunk_bytes, chunks, wire.format)
    }
}

impl From<Manifest> for Wire {
    fn from(manifest: Manifest) -> Self {
        let chunks: Vec<u8> =
            manifest.chunks.iter().flat_map(|digest| digest.as_bytes().iter().copied()).collect();
        Self {
            sha256: manifest.sha256,
            bytes: manifest.bytes,
            chunk_bytes: manifest.chunk_bytes,
            chunks: BASE64_STANDARD.encode(chunks),
            format: manifest.format,
        }
    }
}

impl Format {
    /// Tensors as a safetensors file.
    pub fn safetensors() -> Self {
        Self("safetensors".to_owned())
    }

    /// A model as text.
    pub fn json() -> Self {
        Self("json".to_owned())
    }

    /// A WebAssembly module or component.
    pub fn wasm() -> Self {
        Self("wasm".to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Format {
    type Error = ManifestError;

    fn try_from(text: String) -> Result<Self, ManifestError> {
        let is_allowed = |c: char| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '+' | '_' | '-')
        };
        if text.is_empty() || text.len() > FORMAT_LEN_MAX || !text.chars().all(is_allowed) {
            return Err(ManifestError::Format(text.chars().take(80).collect()));
        }
        Ok(Self(text))
    }
}

/// Makes a manifest of bytes as they come by.
#[derive(Clone, Debug)]
pub struct ManifestBuilder {
    bytes: u64,
    chunk_bytes: u32,
    format: Format,
    whole: Sha256,
    chunk: Sha256,
    /// Of the piece that is not full yet.
    chunk_len: u32,
    seen: u64,
    chunks: Vec<Digest>,
}

impl ManifestBuilder {
    /// For a blob of `bytes` bytes.
    pub fn new(bytes: u64, chunk_bytes: u32, format: Format) -> Result<Self, ManifestError> {
        let chunks = Vec::with_capacity(count(bytes, chunk_bytes)? as usize);
        let (whole, chunk) = (Sha256::new(), Sha256::new());
        Ok(Self { bytes, chunk_bytes, format, whole, chunk, chunk_len: 0, seen: 0, chunks })
    }

    /// The next bytes, cut in whatever way.
    pub fn push(&mut self, mut bytes: &[u8]) {
        self.seen += bytes.len() as u64;
        // What is more than was announced is only counted.
        if self.seen > self.bytes {
            return;
        }
        self.whole.update(bytes);
        while !bytes.is_empty() {
            let room = (self.chunk_bytes - self.chunk_len) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.chunk.update(now);
            self.chunk_len += u32::try_from(now.len()).expect("shorter than a chunk");
            if self.chunk_len == self.chunk_bytes {
                self.cut();
            }
            bytes = later;
        }
    }

    /// [`ManifestError::Count`] if other than the announced bytes came by.
    pub fn finish(mut self) -> Result<Manifest, ManifestError> {
        if self.chunk_len > 0 {
            self.cut();
        }
        if self.seen != self.bytes {
            let (bytes, chunk_bytes) = (self.seen, self.chunk_bytes);
            let expected = bytes.div_ceil(chunk_bytes.into());
            let found = self.chunks.len();
            return Err(ManifestError::Count { bytes, chunk_bytes, expected, found });
        }
        let sha256 = Digest::from_bytes(self.whole.finalize().into());
        Manifest::new(sha256, self.bytes, self.chunk_bytes, self.chunks, self.format)
    }

    fn cut(&mut self) {
        self.chunks.push(Digest::from_bytes(self.chunk.finalize_reset().into()));
        self.chunk_len = 0;
    }
}

fn count(bytes: u64, chunk_bytes: u32) -> Result<u32, ManifestError> {
    if bytes == 0 {
        return Err(ManifestError::Empty);
    }
    if !(CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&chunk_bytes) {
        return Err(ManifestError::ChunkBytes(chunk_bytes));
    }
    let chunks = bytes.div_ceil(chunk_bytes.into());
    u32::try_from(chunks)
        .ok()
        .filter(|chunks| *chunks <= CHUNKS_MAX)
        .ok_or(ManifestError::TooLarge { bytes, chunk_bytes, chunks })
}
