//! A zlib stream (RFC 1950) with a preset dictionary, written and read as it goes by.
//!
//! The dictionary is handed to any DEFLATE code without its help: written, it is compressed first
//! and what comes of it thrown away; read, it is fed first as a block that is stored as it is.

use std::{
    fmt,
    io::{self, Read, Write},
};

use adler2::Adler32;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::{
    DecodeError,
    dictionary::{DICTIONARY, DICTIONARY_ID},
    wire::is_zlib,
};

/// Most bytes that may stand behind a stream, as forwarding puts them there.
pub const TAIL_LEN_MAX: usize = 1024;

/// DEFLATE with a window of 32 KiB, a preset dictionary, and the check of both bytes.
const HEAD: [u8; 2] = [0x78, 0xbb];
const HAS_DICTIONARY: u8 = 0x20;
const BUFFER_LEN: usize = 16 << 10;
/// A short stream is all text, and worth the time; in a long one there is little to be found.
const SHORT_LEN: u64 = 64 << 10;
const LEVEL_SHORT: u32 = 6;
const LEVEL_LONG: u32 = 1;

/// Compresses what is written; [`Deflate::finish`] ends the stream.
pub struct Deflate<W> {
    inner: W,
    state: Compress,
    sum: Adler32,
    buffer: Vec<u8>,
}

impl<W: Write> Deflate<W> {
    /// Begins a stream of about so many bytes: this decides how much time is spent on each.
    pub fn new(mut inner: W, bytes_expected: u64) -> io::Result<Self> {
        inner.write_all(&HEAD)?;
        inner.write_all(&DICTIONARY_ID.to_be_bytes())?;
        let level = if bytes_expected <= SHORT_LEN { LEVEL_SHORT } else { LEVEL_LONG };
        let mut state = Compress::new(Compression::new(level), false);
        let mut buffer = vec![0; BUFFER_LEN];
        pump(&mut state, DICTIONARY, FlushCompress::Sync, &mut buffer, &mut io::sink())?;
        Ok(Self { inner, state, sum: Adler32::new(), buffer })
    }

    /// Ends the stream.
    pub fn finish(mut self) -> io::Result<W> {
        let Self { inner, state, buffer, sum } = &mut self;
        pump(state, &[], FlushCompress::Finish, buffer, inner)?;
        inner.write_all(&sum.checksum().to_be_bytes())?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for Deflate<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sum.write_slice(bytes);
        pump(&mut self.state, bytes, FlushCompress::None, &mut self.buffer, &mut self.inner)?;
        Ok(bytes.len())
    }

    /// Ends a block: what comes next gets a code of its own. Costs five bytes.
    fn flush(&mut self) -> io::Result<()> {
        pump(&mut self.state, &[], FlushCompress::Sync, &mut self.buffer, &mut self.inner)?;
        self.inner.flush()
    }
}

fn pump(
    state: &mut Compress,
    mut input: &[u8],
    flush: FlushCompress,
    buffer: &mut [u8],
    out: &mut dyn Write,
) -> io::Result<()> {
    loop {
        let (read, written) = (state.total_in(), state.total_out());
        let status = state.compress(input, buffer, flush)?;
        input = &input[(state.total_in() - read) as usize..];
        let written = (state.total_out() - written) as usize;
        out.write_all(&buffer[..written])?;
        // Room that was left over means that there was nothing more to write.
        let done = input.is_empty() && written < buffer.len();
        if done || status == Status::StreamEnd {
            return Ok(());
        }
    }
}

/// Reads what was compressed, up to a limit; errors are [`DecodeError`]s in disguise.
pub struct Inflate<R> {
    inner: R,
    state: Decompress,
    sum: Adler32,
    phase: Phase,
    /// What was read and not yet used.
    buffer: Vec<u8>,
    used: usize,
    left: u64,
    max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Head,
    Body,
    Done,
}

impl<R: Read> Inflate<R> {
    /// Gives at most `bytes_max`: what is longer is an error before it is held.
    pub fn new(inner: R, bytes_max: u64) -> Self {
        Self {
            inner,
            state: Decompress::new(false),
            sum: Adler32::new(),
            phase: Phase::Head,
            buffer: vec![],
            used: 0,
            left: bytes_max,
            max: bytes_max,
        }
    }

    /// What stands behind the stream, which has to be read to its end.
    pub fn finish(mut self) -> Result<Vec<u8>, DecodeError> {
        if io::copy(&mut self, &mut io::sink())? > 0 {
            return Err(DecodeError::Zlib("its end was not read"));
        }
        let mut tail = self.buffer.split_off(self.used);
        self.inner.take(TAIL_LEN_MAX as u64 + 1).read_to_end(&mut tail)?;
        match tail.len() {
            0..=TAIL_LEN_MAX => Ok(tail),
            _ => Err(DecodeError::Zlib("there is too much behind its end")),
        }
    }

    fn head(&mut self) -> Result<(), DecodeError> {
        let [method, flags] = self.exactly()?;
        if !is_zlib(method, flags) {
            return Err(DecodeError::Zlib("it does not begin like one"));
        }
        if flags & HAS_DICTIONARY != 0 {
            if u32::from_be_bytes(self.exactly()?) != DICTIONARY_ID {
                return Err(DecodeError::Zlib("it needs a dictionary that is not known"));
            }
            prime(&mut self.state);
        }
        self.phase = Phase::Body;
        Ok(())
    }

    fn body(&mut self, out: &mut [u8]) -> Result<usize, DecodeError> {
        loop {
            if self.used == self.buffer.len() && !self.refill()? {
                return Err(DecodeError::Zlib("it ends early"));
            }
            let (read, written) = (self.state.total_in(), self.state.total_out());
            let rest = &self.buffer[self.used..];
            let status = self.state.decompress(rest, out, FlushDecompress::None);
            let status = status.map_err(|_| DecodeError::Zlib("its blocks are broken"))?;
            let read = (self.state.total_in() - read) as usize;
            let written = (self.state.total_out() - written) as usize;
            self.used += read;
            self.sum.write_slice(&out[..written]);
            let too_large = DecodeError::TooLarge { max: self.max };
            self.left = self.left.checked_sub(written as u64).ok_or(too_large)?;
            if status == Status::StreamEnd {
                self.end()?;
                return Ok(written);
            }
            if written > 0 {
                return Ok(written);
            }
            if read == 0 {
                return Err(DecodeError::Zlib("its blocks are broken"));
            }
        }
    }

    fn end(&mut self) -> Result<(), DecodeError> {
        self.phase = Phase::Done;
        if u32::from_be_bytes(self.exactly()?) == self.sum.checksum() {
            return Ok(());
        }
        Err(DecodeError::Zlib("its check sum is wrong"))
    }

    fn exactly<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            if self.used == self.buffer.len() && !self.refill()? {
                return Err(DecodeError::Zlib("it ends early"));
            }
            *byte = self.buffer[self.used];
            self.used += 1;
        }
        Ok(bytes)
    }

    fn refill(&mut self) -> Result<bool, DecodeError> {
        self.buffer.resize(BUFFER_LEN, 0);
        let read = loop {
            match self.inner.read(&mut self.buffer) {
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.buffer.truncate(read);
        self.used = 0;
        Ok(read > 0)
    }
}

/// After an error there is nothing more to read.
impl<R: Read> Read for Inflate<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let phase = self.phase;
        let read = match phase {
            Phase::Head => self.head().and_then(|()| self.body(out)),
            Phase::Body => self.body(out),
            Phase::Done => Ok(0),
        };
        read.map_err(|why| {
            self.phase = Phase::Done;
            why.into()
        })
    }
}

/// Feeds the dictionary as a stored block (RFC 1951, section 3.2.4) that is not the last.
fn prime(state: &mut Decompress) {
    let len = DICTIONARY.len() as u16;
    let [low, high] = len.to_le_bytes();
    let mut block = vec![0, low, high, !low, !high];
    block.extend_from_slice(DICTIONARY);
    let mut sink = vec![0; DICTIONARY.len()];
    let fed = state.decompress(&block, &mut sink, FlushDecompress::None);
    let all = state.total_in() == block.len() as u64 && sink == DICTIONARY;
    assert!(fed.is_ok() && all, "a stored block is read as it stands");
}

impl<W> fmt::Debug for Deflate<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflate").field("bytes", &self.state.total_in()).finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for Inflate<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflate").field("phase", &self.phase).finish_non_exhaustive()
    }
}
