//! What a blob is made of, from its beginning alone.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use protocol::tensor::safetensors::{HEADER_LEN_MAX, Header};

/// Bytes before the header of a safetensors file.
const PREFIX_LEN: usize = 8;

/// The header of a safetensors file, which says what the rest is.
pub fn read_header(file: &File) -> io::Result<Header> {
    let len = file.metadata()?.len();
    let wanted = usize::try_from(len).unwrap_or(usize::MAX).min(PREFIX_LEN + HEADER_LEN_MAX);
    let mut prefix = [0; PREFIX_LEN];
    if wanted > PREFIX_LEN {
        file.read_exact_at(&mut prefix, 0)?;
    }
    let header_len = usize::try_from(u64::from_le_bytes(prefix)).unwrap_or(usize::MAX);
    let mut start = vec![0; wanted.min(header_len.saturating_add(PREFIX_LEN))];
    file.read_exact_at(&mut start, 0)?;
    Header::read(&start, len).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
}
