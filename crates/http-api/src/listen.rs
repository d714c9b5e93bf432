//! The HTTP port: a bounded number of connections, none of which may stand still for long.

mod farewell;
mod line;
mod tls;

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, serve::Listener};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{self, Sleep},
};
use tokio_util::sync::CancellationToken;

use farewell::Farewell;
pub use line::Line;
pub use tls::HttpTls;

/// Connections served at once; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// How long a connection may go without a byte read or written.
const IDLE_MAX: Duration = Duration::from_secs(60);
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// An open port.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    address: SocketAddr,
    places: Arc<Semaphore>,
    idle_max: Duration,
    tls: Option<HttpTls>,
    /// Those that are still agreeing on keys; they hold up nobody else.
    handshakes: JoinSet<Option<(Line, SocketAddr)>>,
}

/// Why a port is not open.
#[derive(Debug, thiserror::Error)]
#[error("listen for HTTP on {address}")]
pub struct ListenError {
    pub address: SocketAddr,
    #[source]
    pub source: io::Error,
}

/// A connection that is given up when nothing moves on it.
#[derive(Debug)]
pub(crate) struct Moving {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    idle_max: Duration,
    farewell: Option<Farewell>,
    _place: OwnedSemaphorePermit,
}

impl Listening {
    /// Takes the port.
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let handshakes = JoinSet::new();
        Ok(Self { listener, address, places, idle_max: IDLE_MAX, tls: None, handshakes })
    }

    /// The same, but encrypted if there is what that needs.
    #[must_use]
    pub fn with_tls(self, tls: Option<HttpTls>) -> Self {
        Self { tls, ..self }
    }

    /// The same, with less patience.
    #[must_use]
    pub fn with_idle_max(self, idle_max: Duration) -> Self {
        Self { idle_max, ..self }
    }

    /// Where it listens, with the port that it was given.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `closing`, and then what has begun.
    pub async fn serve(self, router: Router, closing: CancellationToken) {
        let served = axum::serve(self, router).with_graceful_shutdown(closing.cancelled_owned());
        if let Err(why) = served.await {
            tracing::error!("the HTTP API ended: {why}");
        }
    }
}

impl Listener for Listening {
    type Io = Line;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Line, SocketAddr) {
        loop {
            tokio::select! {
                Some(shaken) = self.handshakes.join_next() => {
                    if let Ok(Some(line)) = shaken {
                        return line;
                    }
                }
                (moving, peer) = accepted(&self.listener, &self.places, self.idle_max) => {
                    let Some(tls) = &self.tls else { return (Line::plain(moving), peer) };
                    let shaking = tls.clone().shake(moving);
                    self.handshakes.spawn(async move { Some((shaking.await?, peer)) });
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// The next connection for which there is a place.
async fn accepted(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    idle_max: Duration,
) -> (Moving, SocketAddr) {
    loop {
        let place = Arc::clone(places).acquire_owned().await;
        let place = place.expect("nobody closes the semaphore");
        match listener.accept().await {
            Ok((stream, peer)) => {
                let idle = Box::pin(time::sleep(idle_max));
                return (Moving { stream, idle, idle_max, farewell: None, _place: place }, peer);
            }
            Err(why) => {
                tracing::warn!("cannot accept an HTTP connection: {why}");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Moving {
    /// Something moved, or time goes on running.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        moved: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            let idle_max = self.idle_max;
            self.idle.as_mut().set(time::sleep(idle_max));
            return moved;
        }
        match self.idle.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Moving {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let moved = pin!(&mut self.stream).poll_read(cx, buf);
        self.watch(cx, moved)
    }
}

impl AsyncWrite for Moving {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let moved = pin!(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, moved)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let moved = pin!(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, moved)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, farewell, .. } = self.get_mut();
        if farewell.is_none() {
            ready!(pin!(&mut *stream).poll_shutdown(cx))?;
        }
        farewell.get_or_insert_default().poll(stream, cx).map(Ok)
    }
}
