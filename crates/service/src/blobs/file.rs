//! Files that are whole or not there: written beside, flushed, renamed.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use bytes::Bytes;
use protocol::{Manifest, ManifestBuilder, manifest::Format};

use super::error::{BlobError, failed};

/// What is read at once where a whole file is looked at.
const BLOCK: usize = 256 << 10;

/// Has `each` look at all bytes of a file, block by block.
pub(super) fn scan(file: &mut File, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(len) => each(&block[..len]),
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
}

/// What a file consists of, cut into pieces of `chunk_bytes`; reads all of it.
pub fn manifest_of(path: &Path, chunk_bytes: u32, format: Format) -> Result<Manifest, BlobError> {
    let mut file = File::open(path).map_err(failed("open", path))?;
    let bytes = file.metadata().map_err(failed("look at", path))?.len();
    let mut builder = ManifestBuilder::new(bytes, chunk_bytes, format)?;
    scan(&mut file, |block| builder.push(block)).map_err(failed("read", path))?;
    Ok(builder.finish()?)
}

/// One piece of the file of a blob; checked, since disks rot.
pub fn read_piece(path: &Path, manifest: &Manifest, index: u32) -> Result<Bytes, BlobError> {
    let file = File::open(path).map_err(failed("open", path))?;
    let mut bytes = vec![0; manifest.len_of(index)];
    file.read_exact_at(&mut bytes, manifest.offset(index)).map_err(failed("read", path))?;
    manifest.check(index, &bytes)?;
    Ok(bytes.into())
}

/// Puts bytes in a place, by way of `beside`.
pub(super) fn write(bytes: &[u8], beside: &Path, place: &Path) -> Result<(), BlobError> {
    let written = File::create(beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(failed("write", beside)).inspect_err(|_| drop(fs::remove_file(beside)))?;
    settle(beside, place)
}

/// Moves a file to a place, by way of `beside` if it comes from another disk.
pub(super) fn bring(from: &Path, beside: &Path, place: &Path) -> Result<(), BlobError> {
    let flushed = File::open(from).and_then(|file| file.sync_all());
    flushed.map_err(failed("flush", from))?;
    match fs::rename(from, place) {
        Ok(()) => return flush_dir(place),
        Err(why) if why.kind() == io::ErrorKind::CrossesDevices => {}
        Err(why) => return Err(failed("rename to", place)(why)),
    }
    let copied = fs::copy(from, beside).and_then(|_| File::open(beside)?.sync_all());
    copied.map_err(failed("copy to", beside)).inspect_err(|_| drop(fs::remove_file(beside)))?;
    settle(beside, place)?;
    remove(from)
}

/// Renames a file that is flushed, and flushes that.
pub(super) fn settle(beside: &Path, place: &Path) -> Result<(), BlobError> {
    fs::rename(beside, place).map_err(failed("rename to", place))?;
    flush_dir(place)
}

fn flush_dir(place: &Path) -> Result<(), BlobError> {
    let dir = place.parent().unwrap_or(Path::new("."));
    let flushed = File::open(dir).and_then(|dir| dir.sync_all());
    flushed.map_err(failed("flush directory", dir))
}

/// Removes a file; that it is not there is as good.
pub(super) fn remove(path: &Path) -> Result<(), BlobError> {
    match fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(why)),
        Ok(()) | Err(_) => Ok(()),
    }
}
