//! The port of a guarded or encrypted broker: ends TLS, knows who is who, and can cut anyone off.
//!
//! Each connection is carried to the broker over the loopback. One that dawdles over its
//! handshake holds up nobody else.

mod visitors;

use crate::tls::{Encryption, Plainly};
use crate::{BrokerConfig, BrokerError, Certificate, Guarded};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub(crate) use visitors::{VisitorError, Visitors};

/// How long a client has for its TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Handshakes at once: each costs a millisecond of processor and some kilobytes.
const HANDSHAKES_MAX: usize = 512;
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How often it is asked whether those who are in may stay: well within a second.
const REVIEW_EVERY: Duration = Duration::from_millis(250);
const BUFFER_BYTES: usize = 16 * 1024;

/// A port that is taken, and not served yet.
pub(crate) struct Gate {
    listener: TcpListener,
    address: SocketAddr,
    encryption: Option<Arc<Encryption>>,
    guard: Option<Guarded>,
    visitors: Visitors,
}

/// Ends a gate and everyone's way through it.
pub(crate) struct GateStop(CancellationToken);

impl GateStop {
    pub(crate) fn stop(&self) {
        self.0.cancel();
    }
}

impl Drop for GateStop {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Gate {
    /// Takes the port.
    pub(crate) async fn bind(config: &BrokerConfig) -> Result<Self, BrokerError> {
        let address = config.listen;
        let encryption = config.tls.as_ref().map(Encryption::load).transpose()?.map(Arc::new);
        let failed = |source| BrokerError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let guard = config.guard.clone();
        Ok(Self { listener, address, encryption, guard, visitors: Visitors::default() })
    }

    /// Where it listens, with the real port.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn visitors(&self) -> Visitors {
        self.visitors.clone()
    }

    /// Carries clients to the broker at `inside` from here on.
    pub(crate) fn open(self, inside: SocketAddr) -> (GateStop, JoinHandle<()>) {
        let stop = CancellationToken::new();
        let gate = tokio::spawn(self.serve(inside, stop.clone()));
        (GateStop(stop), gate)
    }

    async fn serve(self, inside: SocketAddr, stop: CancellationToken) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let mut clients = JoinSet::new();
        let mut reviews = interval(REVIEW_EVERY);
        reviews.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (client, peer) = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
                _ = reviews.tick() => {
                    self.review();
                    while clients.try_join_next().is_some() {}
                    continue;
                }
            };
            let passage = Passage {
                inside,
                peer,
                visitors: self.visitors.clone(),
                handshakes: Arc::clone(&handshakes),
            };
            clients.spawn(passage.run(client, self.encryption.clone()));
        }
        drop(self.listener);
        clients.shutdown().await;
    }

    fn review(&self) {
        if let Some(encryption) = &self.encryption {
            encryption.refresh();
        }
        self.visitors.review(|name, certificate| {
            let encryption = self.encryption.as_ref();
            let is_good = encryption.is_none_or(|encryption| encryption.is_good(certificate));
            let guard = self.guard.as_ref();
            is_good && guard.is_none_or(|guard| guard.0.is_welcome(name, certificate))
        });
    }
}

/// One client's way to the broker.
struct Passage {
    inside: SocketAddr,
    peer: SocketAddr,
    visitors: Visitors,
    handshakes: Arc<Semaphore>,
}

impl Passage {
    async fn run(self, client: TcpStream, encryption: Option<Arc<Encryption>>) {
        let peer = self.peer;
        // A socket that is gone already is found out by the first read.
        let _ = client.set_nodelay(true);
        let Some(encryption) = encryption else {
            return self.carry(client, None).await;
        };
        let place = self.handshakes.acquire().await;
        let shaken = timeout(HANDSHAKE_MAX, encryption.accept(client)).await;
        drop(place);
        match shaken {
            Ok(Ok(Plainly { stream, certificate })) => self.carry(stream, certificate).await,
            Ok(Err(why)) => tracing::warn!(%peer, "TLS handshake failed: {why}"),
            Err(_) => tracing::warn!(%peer, "no TLS handshake within {HANDSHAKE_MAX:?}"),
        }
    }

    async fn carry<S>(&self, mut client: S, certificate: Option<Certificate>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let carried = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            // Known before the broker can see it.
            let visit = self.visitors.enter(socket.local_addr()?, self.peer, certificate);
            let mut broker = socket.connect(self.inside).await?;
            broker.set_nodelay(true)?;
            let both =
                copy_bidirectional_with_sizes(&mut client, &mut broker, BUFFER_BYTES, BUFFER_BYTES);
            tokio::select! {
                ended = both => ended.map(drop),
                () = visit.cut.cancelled() => Ok(()),
            }
        };
        let ended: io::Result<()> = carried.await;
        if let Err(error) = ended {
            tracing::debug!(%error, peer = %self.peer, "connection ended");
        }
    }
}
