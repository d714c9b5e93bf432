//! Where numbers and bytes come from: memory, or whatever reads a range of a file.

use std::io;

use bytes::Bytes;
use protocol::{Tensors, tensor::safetensors::Header};

/// Bytes that can be read from any place.
pub trait ReadAt {
    /// Fills `buffer` with the bytes from `offset_bytes` on, or fails.
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// The numbers of tensors, little-endian and row-major, each in the type that its schema says.
pub trait Source {
    /// Fills `buffer` with the bytes of a tensor from `offset_bytes` on, or fails.
    fn read(&self, tensor: &str, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// The tensors of a safetensors file that is read where it lies.
#[derive(Clone, Debug)]
pub struct Stored<R> {
    pub header: Header,
    pub file: R,
}

impl ReadAt for [u8] {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset_bytes).unwrap_or(usize::MAX);
        let rest = self.get(from..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(rest.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for Bytes {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self[..].read_at(offset_bytes, buffer)
    }
}

impl<R: ReadAt + ?Sized> ReadAt for &R {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset_bytes, buffer)
    }
}

impl Source for Tensors {
    fn read(&self, tensor: &str, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        let data = self.get(tensor).ok_or_else(|| missing(tensor))?.data();
        data.read_at(offset_bytes, buffer)
    }
}

impl<R: ReadAt> Source for Stored<R> {
    fn read(&self, tensor: &str, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        let span = self.header.spans.get(tensor).ok_or_else(|| missing(tensor))?;
        let len = (span.end - span.begin) as u64;
        if offset_bytes.checked_add(buffer.len() as u64).is_none_or(|end| end > len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let start = self.header.data_start() + span.begin;
        self.file.read_at(start as u64 + offset_bytes, buffer)
    }
}

fn missing(tensor: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no tensor {tensor:?}"))
}
