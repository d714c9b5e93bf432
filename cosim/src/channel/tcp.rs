//! Lines over TCP, to a node that listens.

use std::{
    io,
    net::{TcpStream, ToSocketAddrs},
    thread,
    time::Duration,
};

use super::{Channel, ChannelError, Tail};

const RETRY_EVERY: Duration = Duration::from_millis(50);

impl Channel {
    /// Connects to a node, trying again until it listens or the limit is over.
    pub fn to_tcp(address: &str, limit: Duration) -> Result<Self, ChannelError> {
        let connect = |source| ChannelError::Connect { address: address.to_owned(), source };
        let mut left = limit;
        loop {
            match try_each(address, RETRY_EVERY.max(left)) {
                Ok(stream) => return Self::of_tcp(stream),
                Err(error) if left.is_zero() || !is_refusal(&error) => return Err(connect(error)),
                Err(_) => {
                    let pause = RETRY_EVERY.min(left);
                    thread::sleep(pause);
                    left -= pause;
                }
            }
        }
    }

    /// Takes over a connection.
    pub fn of_tcp(stream: TcpStream) -> Result<Self, ChannelError> {
        // One small line goes each way in turn: waiting to fill a packet would cost 40 ms a step.
        stream.set_nodelay(true)?;
        let reads = stream.try_clone()?;
        Self::over(reads.into(), stream.into(), Tail::default())
    }
}

fn try_each(address: &str, limit: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, limit) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether the node may yet begin to listen.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
}
