//! A stream of lines to and from one node, with a limit on every wait and on every line.
//!
//! One buffer of ours stands before the stream, and it is looked into before anybody waits: so no line is ever held
//! back by a reader that is not asked. While a line is written, what comes in is read: so two sides that both write
//! much do not stand still.

mod stdio;
mod tail;
mod tcp;
mod unix;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

pub use tail::Tail;
pub use unix::Listener;

use crate::wire::LINE_BYTES_MAX;

const READ_BYTES: usize = 64 << 10;

/// Why nothing can be sent or heard.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("silent for {} ms", limit.as_millis())]
    Silence { limit: Duration },
    #[error("takes nothing in for {} ms", limit.as_millis())]
    Stuck { limit: Duration },
    #[error("the stream has ended")]
    Closed,
    #[error("a line is longer than {bytes_max} bytes")]
    Oversize { bytes_max: usize },
    #[error("the stream failed: {0}")]
    Io(#[from] io::Error),
    #[error("no connection at {address}: {source}")]
    Connect { address: String, source: io::Error },
}

/// Both directions of one node's lines.
#[derive(Debug)]
pub struct Channel {
    reads: OwnedFd,
    writes: OwnedFd,
    buffer: Vec<u8>,
    /// The bytes of the buffer that are known to hold no end of line.
    scanned: usize,
    ended: bool,
    tail: Tail,
}

impl Channel {
    /// A channel over two descriptors, or twice the same one; both become non-blocking.
    fn over(reads: OwnedFd, writes: OwnedFd, tail: Tail) -> Result<Self, ChannelError> {
        for fd in [&reads, &writes] {
            rustix::io::ioctl_fionbio(fd, true).map_err(io::Error::from)?;
        }
        Ok(Self { reads, writes, buffer: vec![], scanned: 0, ended: false, tail })
    }

    /// The last words of the node outside of the protocol: its stderr.
    #[must_use]
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Gives the node's last words another source: what its process writes beside a socket.
    #[must_use]
    pub fn with_tail(self, tail: Tail) -> Self {
        Self { tail, ..self }
    }

    /// Writes all bytes, reading what comes in meanwhile.
    pub fn send(&mut self, mut bytes: &[u8], limit: Duration) -> Result<(), ChannelError> {
        let end = Patience::new(limit);
        while !bytes.is_empty() {
            match rustix::io::write(&self.writes, bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait_to_write(&end)?,
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ChannelError::Closed),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(())
    }

    /// The next line, without its end.
    pub fn receive(&mut self, limit: Duration) -> Result<Vec<u8>, ChannelError> {
        let end = Patience::new(limit);
        loop {
            if let Some(line) = self.buffered()? {
                return Ok(line);
            }
            if self.ended {
                return Err(ChannelError::Closed);
            }
            if !self.fill()? && !self.ended {
                let mut fds = [PollFd::new(&self.reads, PollFlags::IN)];
                if !end.wait(&mut fds)? {
                    return Err(ChannelError::Silence { limit });
                }
            }
        }
    }

    /// A line that has come without being waited for.
    pub fn unasked(&mut self) -> Result<Option<Vec<u8>>, ChannelError> {
        while !self.ended && self.buffer.len() <= LINE_BYTES_MAX && self.fill()? {}
        self.buffered()
    }

    /// Whether the other side has closed its end, as far as was read.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes a whole line out of the buffer.
    fn buffered(&mut self) -> Result<Option<Vec<u8>>, ChannelError> {
        let found = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n');
        let Some(at) = found.map(|at| at + self.scanned) else {
            self.scanned = self.buffer.len();
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(ChannelError::Oversize { bytes_max: LINE_BYTES_MAX });
            }
            return Ok(None);
        };
        if at > LINE_BYTES_MAX {
            return Err(ChannelError::Oversize { bytes_max: LINE_BYTES_MAX });
        }
        let mut line: Vec<u8> = self.buffer.drain(..=at).collect();
        line.pop();
        self.scanned = 0;
        Ok(Some(line))
    }

    /// Reads once, and says whether there was something; sets `ended` at the end.
    fn fill(&mut self) -> Result<bool, ChannelError> {
        self.buffer.reserve(READ_BYTES);
        loop {
            return match rustix::io::read(&self.reads, spare_capacity(&mut self.buffer)) {
                Ok(0) | Err(Errno::CONNRESET | Errno::IO) => {
                    self.ended = true;
                    Ok(false)
                }
                Ok(_) => Ok(true),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Ok(false),
                Err(error) => Err(io::Error::from(error).into()),
            };
        }
    }

    fn wait_to_write(&mut self, end: &Patience) -> Result<(), ChannelError> {
        // A node that talks without end is left to wait, not given all of our memory.
        let listens = !self.ended && self.buffer.len() <= LINE_BYTES_MAX;
        let ready = {
            let mut fds = vec![PollFd::new(&self.writes, PollFlags::OUT)];
            if listens {
                fds.push(PollFd::new(&self.reads, PollFlags::IN));
            }
            end.wait(&mut fds)?
        };
        if !ready {
            return Err(ChannelError::Stuck { limit: end.limit });
        }
        if listens {
            self.fill()?;
        }
        Ok(())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reads.as_fd()
    }
}

/// The wall time that is left for one wait. It decides whether a node is given up, and nothing in virtual time.
struct Patience {
    limit: Duration,
    end: Instant,
}

impl Patience {
    #[expect(clippy::disallowed_methods, reason = "how long a process is waited for is wall time")]
    fn new(limit: Duration) -> Self {
        Self { limit, end: Instant::now() + limit }
    }

    /// Waits for one of the descriptors; `false` when the time is over.
    #[expect(clippy::disallowed_methods, reason = "how long a process is waited for is wall time")]
    fn wait(&self, fds: &mut [PollFd<'_>]) -> Result<bool, ChannelError> {
        loop {
            let left = self.end.saturating_duration_since(Instant::now());
            let left = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            match poll(fds, Some(&left)) {
                Ok(count) => return Ok(count > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }
}
