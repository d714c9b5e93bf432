//! A file that is to become a blob, and which of its pieces are right.

use std::{fs::File, os::unix::fs::FileExt as _, path::PathBuf};

use protocol::{Digest, Manifest, manifest::ChunkError};
use transfer::Bitmap;

use super::{
    error::{BlobError, failed},
    file,
};

#[derive(Debug)]
pub(super) struct Partial {
    pub(super) path: PathBuf,
    file: File,
    /// Of the whole.
    pub(super) bytes: u64,
    pub(super) have: Bitmap,
    /// How many transfers write it.
    pub(super) users: u32,
}

impl Partial {
    /// Opens or makes the file, and looks at every piece that may be in it.
    pub(super) fn open(path: PathBuf, manifest: &Manifest) -> Result<Self, BlobError> {
        let mut options = File::options();
        let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(failed("open", &path))?;
        let bytes = manifest.bytes();
        let found = file.metadata().map_err(failed("look at", &path))?.len();
        if found > bytes {
            file.set_len(bytes).map_err(failed("cut", &path))?;
        }
        let mut have = Bitmap::empty(manifest.count());
        let mut piece = vec![0; manifest.chunk_bytes() as usize];
        for index in 0..manifest.count() {
            let piece = &mut piece[..manifest.len_of(index)];
            if manifest.offset(index) + piece.len() as u64 > found {
                break;
            }
            let read = file.read_exact_at(piece, manifest.offset(index));
            read.map_err(failed("read", &path))?;
            if manifest.check(index, piece).is_ok() {
                have.insert(index);
            }
        }
        Ok(Self { path, file, bytes, have, users: 1 })
    }

    pub(super) fn write(
        &mut self,
        manifest: &Manifest,
        index: u32,
        bytes: &[u8],
    ) -> Result<(), BlobError> {
        let (found, expected) = (bytes.len(), manifest.len_of(index));
        if found != expected || found == 0 {
            return Err(ChunkError::Length { index, found, expected }.into());
        }
        let written = self.file.write_all_at(bytes, manifest.offset(index));
        written.map_err(failed("write", &self.path))?;
        self.have.insert(index);
        Ok(())
    }

    /// Checks that the whole is what it should be, and flushes it.
    pub(super) fn seal(&self, manifest: &Manifest) -> Result<(), BlobError> {
        let expected = manifest.sha256();
        let (have, count) = (self.have.count(), self.have.len());
        if have < count {
            return Err(BlobError::Incomplete { sha256: expected, have, count });
        }
        let mut file = File::open(&self.path).map_err(failed("open", &self.path))?;
        let mut whole = Digest::builder();
        let read = file::scan(&mut file, |block| whole.push(block));
        read.map_err(failed("read", &self.path))?;
        let found = whole.finish();
        if found != expected {
            return Err(BlobError::Digest { expected, found });
        }
        self.file.sync_all().map_err(failed("flush", &self.path))
    }
}
