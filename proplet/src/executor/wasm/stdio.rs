//! Where a guest's standard output and standard error go: captured whole up to a limit, and passed
//! on to the log line by line.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::format_err;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError, StreamResult},
};

/// How much a guest may write at once; also what the host allocates for it.
const PERMIT_BYTES: usize = 64 << 10;
const LINE_BYTES_MAX: usize = 1 << 10;
const TAIL_BYTES_MAX: usize = 2 << 10;

/// What bytes written by the guest are put into.
pub(in crate::executor) trait Sink: Send + 'static {
    /// Takes the bytes; an error ends the guest.
    fn accept(&mut self, bytes: &[u8]) -> wasmtime::Result<()>;
}

/// A sink that guest and host share.
#[derive(Debug)]
pub(in crate::executor) struct Shared<S>(
    // A mutex, because WASI makes a stream of its own for each handle the guest opens.
    Arc<Mutex<S>>,
);

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Shared<S> {
    pub(in crate::executor) fn new(sink: S) -> Self {
        Self(Arc::new(Mutex::new(sink)))
    }

    pub(in crate::executor) fn lock(&self) -> MutexGuard<'_, S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Sink> IsTerminal for Shared<S> {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl<S: Sink> StdoutStream for Shared<S> {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI p3 asks for this, which is not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl<S: Sink> Pollable for Shared<S> {
    async fn ready(&mut self) {}
}

impl<S: Sink> OutputStream for Shared<S> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.lock().accept(&bytes).map_err(StreamError::Trap)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT_BYTES)
    }
}

/// Standard output: whole, or not at all.
#[derive(Debug)]
pub(in crate::executor) struct Capture {
    bytes: Vec<u8>,
    bytes_max: usize,
    overflowed: bool,
}

impl Capture {
    pub(in crate::executor) fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), bytes_max, overflowed: false }
    }

    /// Whether the guest tried to print more than it may.
    pub(in crate::executor) fn overflowed(&self) -> bool {
        self.overflowed
    }

    pub(in crate::executor) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

impl Sink for Capture {
    fn accept(&mut self, bytes: &[u8]) -> wasmtime::Result<()> {
        if self.overflowed || bytes.len() > self.bytes_max - self.bytes.len() {
            self.overflowed = true;
            self.bytes = Vec::new();
            return Err(format_err!("standard output is full"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// Standard error: lines for the log, up to a limit, and the last bytes for the report.
#[derive(Debug)]
pub(in crate::executor) struct Log {
    label: String,
    line: Vec<u8>,
    tail: VecDeque<u8>,
    forwarded: usize,
    forwarded_max: usize,
    dropped: usize,
}

impl Log {
    pub(in crate::executor) fn new(label: String, forwarded_max: usize) -> Self {
        Self {
            label,
            line: Vec::new(),
            tail: VecDeque::new(),
            forwarded: 0,
            forwarded_max,
            dropped: 0,
        }
    }

    /// Ends the last line, says what was dropped, and gives the last of it all.
    pub(in crate::executor) fn finish(&mut self) -> String {
        self.end_line();
        if self.dropped > 0 {
            let bytes = self.dropped;
            tracing::warn!(target: "guest", job = %self.label, bytes, "more was written than is logged");
        }
        let tail: Vec<u8> = std::mem::take(&mut self.tail).into();
        String::from_utf8_lossy(&tail).into_owned()
    }

    fn end_line(&mut self) {
        if self.line.is_empty() {
            return;
        }
        if self.forwarded + self.line.len() > self.forwarded_max {
            self.dropped += self.line.len();
        } else {
            self.forwarded += self.line.len();
            let line = printable(&self.line);
            tracing::info!(target: "guest", job = %self.label, "{line}");
        }
        self.line.clear();
    }
}

impl Sink for Log {
    fn accept(&mut self, bytes: &[u8]) -> wasmtime::Result<()> {
        for &byte in bytes {
            if byte == b'\n' || self.line.len() == LINE_BYTES_MAX {
                self.end_line();
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
        let last = &bytes[bytes.len().saturating_sub(TAIL_BYTES_MAX)..];
        let over = (self.tail.len() + last.len()).saturating_sub(TAIL_BYTES_MAX);
        self.tail.drain(..over);
        self.tail.extend(last);
        Ok(())
    }
}

/// A guest's line without what would steer a terminal.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}
