//! Uploaded modules, each held once however many tasks name it.

use std::{cell::OnceCell, collections::BTreeMap};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use protocol::{Digest, Entry, Manifest, Output, manifest::Format};

use crate::{act::Acts, record::FILES, spec::FileRef};

/// Modules by digest, with how many tasks name each.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    by_digest: BTreeMap<Digest, Held>,
    len: usize,
    /// What a module is cut into that goes in pieces.
    chunk_len: u32,
}

#[derive(Clone, Debug)]
struct Held {
    bytes: Bytes,
    tasks: usize,
    /// Made when it is first needed; nothing if it cannot be cut so that it fits.
    manifest: OnceCell<Option<Manifest>>,
}

impl Files {
    /// None yet.
    pub(crate) fn new(chunk_len: u32) -> Self {
        Self { by_digest: BTreeMap::new(), len: 0, chunk_len }
    }

    /// Whether `bytes` can be taken without holding more than `len_max` in all.
    pub(crate) fn has_room(&self, bytes: &Bytes, len_max: usize) -> bool {
        self.by_digest.contains_key(&Digest::of(bytes))
            || self.len.saturating_add(bytes.len()) <= len_max
    }

    /// Holds `bytes` for one more task.
    pub(crate) fn take(&mut self, bytes: Bytes, out: &mut Acts) -> FileRef {
        let file = FileRef { digest: Digest::of(&bytes), len: bytes.len() };
        if !self.by_digest.contains_key(&file.digest) {
            out.push(Output::Keep(Entry::put_bytes(FILES, file.digest, bytes.to_vec())));
            self.insert(file.digest, bytes);
        }
        self.share(file);
        file
    }

    /// One more task names a module that is held.
    pub(crate) fn share(&mut self, file: FileRef) {
        if let Some(held) = self.by_digest.get_mut(&file.digest) {
            held.tasks += 1;
        }
    }

    /// One task less names it; the last one forgets it. Whether it did.
    pub(crate) fn release(&mut self, file: FileRef, out: &mut Acts) -> bool {
        let Some(held) = self.by_digest.get_mut(&file.digest) else { return false };
        held.tasks = held.tasks.saturating_sub(1);
        if held.tasks > 0 {
            return false;
        }
        self.len -= held.bytes.len();
        self.by_digest.remove(&file.digest);
        out.push(Output::Keep(Entry::forget(FILES, file.digest)));
        true
    }

    /// A module that was kept before a restart.
    pub(crate) fn insert(&mut self, digest: Digest, bytes: Bytes) {
        self.len += bytes.len();
        self.by_digest.insert(digest, Held { bytes, tasks: 0, manifest: OnceCell::new() });
    }

    /// The module as base64 text.
    pub(crate) fn text(&self, file: FileRef) -> Option<String> {
        self.by_digest.get(&file.digest).map(|held| STANDARD.encode(&held.bytes))
    }

    /// What the pieces of a module are.
    pub(crate) fn manifest(&self, sha256: &Digest) -> Option<&Manifest> {
        let held = self.by_digest.get(sha256)?;
        held.manifest.get_or_init(|| cut(&held.bytes, self.chunk_len)).as_ref()
    }

    /// A piece of a module; it shares the module's memory.
    pub(crate) fn piece(&self, manifest: &Manifest, index: u32) -> Option<Bytes> {
        let held = self.by_digest.get(&manifest.sha256())?;
        let from = usize::try_from(manifest.offset(index)).ok()?;
        let to = from.checked_add(manifest.len_of(index))?;
        (to <= held.bytes.len()).then(|| held.bytes.slice(from..to))
    }

    /// Bytes of all modules together.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }
}

/// Nothing if it would be more pieces than there may be; longer ones the broker may not take.
fn cut(bytes: &Bytes, chunk_len: u32) -> Option<Manifest> {
    Manifest::of(bytes, chunk_len, Format::wasm()).ok()
}

/// A module out of its base64 text; line breaks, as some tools put them in, are no harm.
pub(crate) fn decode(text: &str) -> Result<Bytes, base64::DecodeError> {
    let compact: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(compact).map(Bytes::from)
}
