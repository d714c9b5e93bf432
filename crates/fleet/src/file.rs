//! Uploaded modules, each held once however many tasks name it.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use protocol::{Digest, Entry, Output};

use crate::{act::Acts, record::FILES, spec::FileRef};

/// Modules by digest, with how many tasks name each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    by_digest: BTreeMap<Digest, Held>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Held {
    bytes: Bytes,
    tasks: usize,
}

impl Files {
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

    /// One task less names it; the last one forgets it.
    pub(crate) fn release(&mut self, file: FileRef, out: &mut Acts) {
        let Some(held) = self.by_digest.get_mut(&file.digest) else { return };
        held.tasks = held.tasks.saturating_sub(1);
        if held.tasks == 0 {
            self.len -= held.bytes.len();
            self.by_digest.remove(&file.digest);
            out.push(Output::Keep(Entry::forget(FILES, file.digest)));
        }
    }

    /// A module that was kept before a restart.
    pub(crate) fn insert(&mut self, digest: Digest, bytes: Bytes) {
        self.len += bytes.len();
        self.by_digest.insert(digest, Held { bytes, tasks: 0 });
    }

    /// The module as base64 text.
    pub(crate) fn text(&self, file: FileRef) -> Option<String> {
        self.by_digest.get(&file.digest).map(|held| STANDARD.encode(&held.bytes))
    }

    /// Bytes of all modules together.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }
}

/// A module out of its base64 text; line breaks, as some tools put them in, are no harm.
pub(crate) fn decode(text: &str) -> Result<Bytes, base64::DecodeError> {
    let compact: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(compact).map(Bytes::from)
}
