//! A directory of blobs, each a file named by its digest; whole or not there at all.
//!
//! A blob that comes in pieces is written to a partial file beside, of which nothing is believed:
//! after a restart every piece is checked against the manifest again. Only when the whole has the
//! digest of its name is it flushed and renamed into its place. Files are read and written piece by
//! piece; none is ever in memory as a whole.
//!
//! What is used least recently and not pinned goes when there is no room. All calls block: give it
//! to a thread of its own.

mod error;
mod file;
mod header;
mod partial;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use protocol::{Digest, Manifest, manifest::Format};
use transfer::Bitmap;

pub use error::BlobError;
pub use file::{manifest_of, read_piece};
pub use header::read_header;

use error::failed;
use partial::Partial;

const PARTIAL: &str = ".part";
const UNNAMED: &str = ".tmp";

/// Limits of one directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRules {
    /// All blobs together, those that are still coming with their full length.
    pub bytes_max: u64,
}

/// The one owner of a directory of blobs.
#[derive(Debug)]
pub struct Blobs {
    dir: PathBuf,
    rules: BlobRules,
    held: BTreeMap<Digest, Held>,
    /// By the manifest's fingerprint: one that lies cannot spoil another's pieces.
    partials: BTreeMap<Digest, Partial>,
    /// Partial files that nobody goes on with, and their lengths.
    idle: BTreeMap<PathBuf, u64>,
    /// Counts uses, to know the least recent.
    uses: u64,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: u64,
    used: u64,
    pins: u32,
}

impl Blobs {
    /// Takes over what is in `dir`, and makes it if it is not there.
    pub fn open(dir: &Path, rules: BlobRules) -> Result<Self, BlobError> {
        fs::create_dir_all(dir).map_err(failed("make directory", dir))?;
        let mut blobs = Self {
            dir: dir.to_owned(),
            rules,
            held: BTreeMap::new(),
            partials: BTreeMap::new(),
            idle: BTreeMap::new(),
            uses: 0,
        };
        let mut found = vec![];
        for entry in fs::read_dir(dir).map_err(failed("read directory", dir))? {
            let entry = entry.map_err(failed("read directory", dir))?;
            let path = entry.path();
            let meta = entry.metadata().map_err(failed("look at", &path))?;
            let name = entry.file_name().into_string().unwrap_or_default();
            if name.ends_with(UNNAMED) {
                file::remove(&path)?;
            } else if name.ends_with(PARTIAL) {
                blobs.idle.insert(path, meta.len());
            } else if let Some(digest) = named(&name) {
                found.push((meta.modified().ok(), digest, meta.len()));
            }
        }
        found.sort();
        for (_, digest, bytes) in found {
            blobs.hold(digest, bytes);
        }
        Ok(blobs)
    }

    /// Makes ready for a blob's pieces, and says which are there already, checked one by one. A
    /// second transfer of the same manifest shares the first one's file.
    pub fn begin(&mut self, manifest: &Manifest) -> Result<Bitmap, BlobError> {
        if self.held.contains_key(&manifest.sha256()) {
            self.touch(&manifest.sha256());
            return Ok(Bitmap::full(manifest.count()));
        }
        let key = manifest.fingerprint();
        if let Some(partial) = self.partials.get_mut(&key) {
            partial.users += 1;
            return Ok(partial.have.clone());
        }
        let path = self.partial_path(manifest);
        let idle = self.idle.remove(&path);
        self.make_room(manifest.bytes()).inspect_err(|_| {
            self.idle.extend(idle.map(|len| (path.clone(), len)));
        })?;
        let partial = Partial::open(path, manifest)?;
        let have = partial.have.clone();
        self.partials.insert(key, partial);
        Ok(have)
    }

    /// Puts a piece in its place. Whoever calls has checked it.
    pub fn write(
        &mut self,
        manifest: &Manifest,
        index: u32,
        bytes: &[u8],
    ) -> Result<(), BlobError> {
        let sha256 = manifest.sha256();
        if self.held.contains_key(&sha256) {
            return Ok(());
        }
        let partial = self.partials.get_mut(&manifest.fingerprint());
        partial.ok_or(BlobError::NotBegun { sha256 })?.write(manifest, index, bytes)
    }

    /// Checks the whole, and puts it in its place, durably; returns that place. One that is not
    /// what its manifest says is removed.
    pub fn finish(&mut self, manifest: &Manifest) -> Result<PathBuf, BlobError> {
        let sha256 = manifest.sha256();
        let place = self.place(&sha256);
        if self.held.contains_key(&sha256) {
            self.abandon(manifest);
            self.touch(&sha256);
            return Ok(place);
        }
        let key = manifest.fingerprint();
        let partial = self.partials.get(&key).ok_or(BlobError::NotBegun { sha256 })?;
        match partial.seal(manifest) {
            Ok(()) => {}
            Err(why @ BlobError::Digest { .. }) => {
                let path = partial.path.clone();
                self.partials.remove(&key);
                file::remove(&path)?;
                return Err(why);
            }
            Err(why) => return Err(why),
        }
        file::settle(&partial.path, &place)?;
        self.partials.remove(&key);
        self.hold(sha256, manifest.bytes());
        Ok(place)
    }

    /// One transfer of this manifest less. What has come stays for the next, as long as there is
    /// room for it.
    pub fn abandon(&mut self, manifest: &Manifest) {
        let key = manifest.fingerprint();
        let Some(partial) = self.partials.get_mut(&key) else { return };
        partial.users -= 1;
        if partial.users == 0 {
            let path = partial.path.clone();
            self.partials.remove(&key);
            self.idle.insert(path, manifest.bytes());
        }
    }

    pub fn holds(&self, sha256: &Digest) -> bool {
        self.held.contains_key(sha256)
    }

    /// Where a blob is, whole. It stays there as long as it is pinned.
    pub fn path(&mut self, sha256: &Digest) -> Option<PathBuf> {
        self.touch(sha256);
        self.held.contains_key(sha256).then(|| self.place(sha256))
    }

    /// One piece of a blob that is here as a whole; checked, since disks rot.
    pub fn read_chunk(&mut self, manifest: &Manifest, index: u32) -> Result<Bytes, BlobError> {
        let sha256 = manifest.sha256();
        let path = self.path(&sha256).ok_or(BlobError::Missing { sha256 })?;
        read_piece(&path, manifest, index)
    }

    /// The manifest of a blob that is here as a whole.
    pub fn manifest(
        &mut self,
        sha256: &Digest,
        chunk_bytes: u32,
        format: Format,
    ) -> Result<Manifest, BlobError> {
        let path = self.path(sha256).ok_or(BlobError::Missing { sha256: *sha256 })?;
        let manifest = manifest_of(&path, chunk_bytes, format)?;
        let (expected, found) = (*sha256, manifest.sha256());
        if found != expected {
            return Err(BlobError::Digest { expected, found });
        }
        Ok(manifest)
    }

    /// Takes a file over as a blob; it is moved, or copied from another disk and removed there.
    pub fn adopt(
        &mut self,
        from: &Path,
        chunk_bytes: u32,
        format: Format,
    ) -> Result<Manifest, BlobError> {
        let manifest = manifest_of(from, chunk_bytes, format)?;
        let sha256 = manifest.sha256();
        if self.held.contains_key(&sha256) {
            file::remove(from)?;
            self.touch(&sha256);
            return Ok(manifest);
        }
        self.make_room(manifest.bytes())?;
        file::bring(from, &self.unnamed_path(&sha256), &self.place(&sha256))?;
        self.hold(sha256, manifest.bytes());
        Ok(manifest)
    }

    /// Keeps bytes that are in memory as a blob.
    pub fn put(
        &mut self,
        bytes: &[u8],
        chunk_bytes: u32,
        format: Format,
    ) -> Result<Manifest, BlobError> {
        let manifest = Manifest::of(bytes, chunk_bytes, format)?;
        let sha256 = manifest.sha256();
        if self.held.contains_key(&sha256) {
            self.touch(&sha256);
            return Ok(manifest);
        }
        self.make_room(manifest.bytes())?;
        file::write(bytes, &self.unnamed_path(&sha256), &self.place(&sha256))?;
        self.hold(sha256, manifest.bytes());
        Ok(manifest)
    }

    /// A blob that is used may not go; as often as it is pinned, it is to be unpinned.
    pub fn pin(&mut self, sha256: &Digest) {
        if let Some(held) = self.held.get_mut(sha256) {
            held.pins += 1;
        }
    }

    pub fn unpin(&mut self, sha256: &Digest) {
        if let Some(held) = self.held.get_mut(sha256) {
            held.pins = held.pins.saturating_sub(1);
        }
    }

    /// Gives a blob away: moves its file to `place`, on the same disk.
    pub fn hand_over(&mut self, sha256: &Digest, place: &Path) -> Result<(), BlobError> {
        let path = self.path(sha256).ok_or(BlobError::Missing { sha256: *sha256 })?;
        file::settle(&path, place)?;
        self.held.remove(sha256);
        Ok(())
    }

    /// Removes a blob, pinned or not.
    pub fn remove(&mut self, sha256: &Digest) -> Result<(), BlobError> {
        if self.held.remove(sha256).is_some() {
            file::remove(&self.place(sha256))?;
        }
        Ok(())
    }

    /// Removes what nobody goes on with and nobody will: partial files of other blobs than those in
    /// `keep`. Returns how many.
    pub fn sweep(&mut self, keep: &BTreeSet<Digest>) -> Result<usize, BlobError> {
        let wanted = |path: &Path| partial_of(path).is_some_and(|sha256| keep.contains(&sha256));
        let swept: Vec<PathBuf> = self.idle.keys().filter(|path| !wanted(path)).cloned().collect();
        for path in &swept {
            file::remove(path)?;
            self.idle.remove(path);
        }
        Ok(swept.len())
    }

    /// What all files together take, or will take when they are whole.
    pub fn bytes(&self) -> u64 {
        let held: u64 = self.held.values().map(|held| held.bytes).sum();
        let partial: u64 = self.partials.values().map(|partial| partial.bytes).sum();
        held + partial + self.idle.values().sum::<u64>()
    }

    /// Room for `bytes` more: partial files that nobody goes on with go first.
    fn make_room(&mut self, bytes: u64) -> Result<(), BlobError> {
        let bytes_max = self.rules.bytes_max;
        let fixed: u64 = self.partials.values().map(|partial| partial.bytes).sum::<u64>()
            + self.held.values().filter(|held| held.pins > 0).map(|held| held.bytes).sum::<u64>();
        if fixed.saturating_add(bytes) > bytes_max {
            // Nothing is thrown away for what cannot be had anyway.
            return Err(BlobError::Full { needed: bytes, in_use: fixed, bytes_max });
        }
        while self.bytes().saturating_add(bytes) > bytes_max {
            if let Some((path, _)) = self.idle.pop_first() {
                file::remove(&path)?;
                continue;
            }
            let unpinned = self.held.iter().filter(|(_, held)| held.pins == 0);
            let oldest = unpinned.min_by_key(|(_, held)| held.used).map(|(digest, _)| *digest);
            let oldest = oldest.expect("what is not fixed can go, and that is enough");
            self.remove(&oldest)?;
        }
        Ok(())
    }

    fn hold(&mut self, sha256: Digest, bytes: u64) {
        self.uses += 1;
        self.held.insert(sha256, Held { bytes, used: self.uses, pins: 0 });
    }

    fn touch(&mut self, sha256: &Digest) {
        self.uses += 1;
        if let Some(held) = self.held.get_mut(sha256) {
            held.used = self.uses;
        }
    }

    fn place(&self, sha256: &Digest) -> PathBuf {
        self.dir.join(sha256.to_string())
    }

    fn unnamed_path(&self, sha256: &Digest) -> PathBuf {
        self.dir.join(format!("{sha256}{UNNAMED}"))
    }

    fn partial_path(&self, manifest: &Manifest) -> PathBuf {
        let fingerprint = manifest.fingerprint();
        self.dir.join(format!("{}-{fingerprint}{PARTIAL}", manifest.sha256()))
    }
}

/// The blob that a partial file is to become.
fn partial_of(path: &Path) -> Option<Digest> {
    named(path.file_name()?.to_str()?.split_once('-')?.0)
}

/// Only the canonical spelling, so that one blob has one file.
fn named(name: &str) -> Option<Digest> {
    name.parse().ok().filter(|digest: &Digest| digest.to_string() == name)
}
