//! Files as streams.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime_wasi::{
    async_trait,
    p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult},
};

use super::{
    super::{
        super::wasm::stdio::Shared,
        files::{Files, Place},
        volume::FileError,
    },
    Time,
};

/// How much is read or written at once.
const PIECE_BYTES: usize = 64 << 10;

/// A file that stays as long as this does.
struct Held {
    files: Shared<Files>,
    place: Place,
}

impl Held {
    fn new(files: &Shared<Files>, place: Place) -> Self {
        files.lock().hold(place);
        Self { files: files.clone(), place }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.files.lock().close(self.place);
    }
}

/// A file that is read from a position on.
pub(super) struct Reader {
    held: Held,
    position: u64,
}

impl Reader {
    pub(super) fn new(files: &Shared<Files>, place: Place, position: u64) -> Self {
        Self { held: Held::new(files, place), position }
    }
}

#[async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {}
}

impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let bytes = piece(&self.held.files, self.held.place, self.position, size as u64);
        let bytes = bytes.map_err(failed)?;
        if bytes.is_empty() && size > 0 {
            return Err(StreamError::Closed);
        }
        self.position = self.position.saturating_add(bytes.len() as u64);
        Ok(bytes)
    }
}

/// A file that is written from a position on, or at its end.
pub(super) struct Writer {
    held: Held,
    position: Option<u64>,
    time: Arc<Time>,
}

impl Writer {
    pub(super) fn new(
        files: &Shared<Files>,
        place: Place,
        position: Option<u64>,
        time: &Arc<Time>,
    ) -> Self {
        Self { held: Held::new(files, place), position, time: Arc::clone(time) }
    }
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {}
}

impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let Held { files, place } = &self.held;
        let mut files = files.lock();
        let at = match self.position {
            Some(position) => position,
            None => files.stat(*place).map_err(failed)?.size,
        };
        files.write(*place, at, &bytes, self.time.wall_ns()).map_err(failed)?;
        self.position = self.position.map(|position| position.saturating_add(bytes.len() as u64));
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PIECE_BYTES)
    }
}

/// What a file holds at an offset, up to a limit; empty at its end.
pub(super) fn piece(
    files: &Shared<Files>,
    file: Place,
    offset: u64,
    len: u64,
) -> Result<Bytes, FileError> {
    let files = files.lock();
    let bytes = files.read(file, offset)?;
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(PIECE_BYTES).min(bytes.len());
    Ok(Bytes::copy_from_slice(&bytes[..len]))
}

fn failed(error: FileError) -> StreamError {
    match error {
        FileError::Quota => StreamError::Trap(error.into()),
        FileError::BadDescriptor
        | FileError::Exists
        | FileError::Invalid
        | FileError::IsDirectory
        | FileError::NameTooLong
        | FileError::NoEntry
        | FileError::NotDirectory
        | FileError::NotEmpty
        | FileError::NotPermitted => StreamError::LastOperationFailed(error.into()),
    }
}
