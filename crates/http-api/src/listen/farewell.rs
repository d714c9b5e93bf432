//! The end of a connection: whoever still sends gets to hear the answer first.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead as _, ReadBuf},
    net::TcpStream,
    time::{self, Instant, Sleep},
};

/// How long a caller may be silent before its connection is dropped.
const SILENCE_MAX: Duration = Duration::from_millis(500);
/// How long it may go on sending.
const SENDING_MAX: Duration = Duration::from_secs(10);
const READ_LEN: usize = 16 << 10;

/// What comes after the last byte of an answer. Closing a socket with unread bytes in it resets the
/// connection, and a reset overtakes the answer: of a body that was refused for its length the caller
/// would learn nothing. So what it still sends is read and thrown away until it hangs up.
#[derive(Debug)]
pub(super) struct Farewell {
    silence: Pin<Box<Sleep>>,
    ends: Instant,
}

impl Default for Farewell {
    fn default() -> Self {
        let ends = Instant::now() + SENDING_MAX;
        Self { silence: Box::pin(time::sleep(SILENCE_MAX)), ends }
    }
}

impl Farewell {
    /// Ready when the caller has hung up, or was given long enough to.
    pub(super) fn poll(&mut self, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; READ_LEN];
        loop {
            let mut read = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *stream).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    let now = Instant::now();
                    if now >= self.ends {
                        return Poll::Ready(());
                    }
                    self.silence.as_mut().reset((now + SILENCE_MAX).min(self.ends));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.silence.as_mut().poll(cx),
            }
        }
    }
}
