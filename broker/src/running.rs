//! The life of an embedded broker: started on threads of its own, stopped or dropped with them.

use crate::{BrokerConfig, BrokerError, Kind};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinError, JoinHandle};

/// How long [`RunningBroker::stop`] lets connections finish before it cuts them.
const GRACE: Duration = Duration::from_secs(6);

/// What an implementation hands back once it serves.
pub(crate) struct Serving {
    /// Where, with the port that the system picked.
    pub(crate) address: SocketAddr,
    /// Asks it to finish; called once.
    pub(crate) shutdown: Box<dyn FnOnce() + Send + Sync>,
    /// Ends when it has finished and its listener is closed.
    pub(crate) finished: JoinHandle<()>,
}

/// A broker that serves until it is stopped or dropped.
///
/// It has threads of its own, so a busy or blocked caller does not hold up its clients.
pub struct RunningBroker {
    kind: Kind,
    address: SocketAddr,
    // Before `threads`, so that a drop asks first and cuts afterwards.
    shutdown: Option<Box<dyn FnOnce() + Send + Sync>>,
    finished: JoinHandle<()>,
    threads: Threads,
}

/// Starts a broker; when this returns, it accepts connections.
///
/// # Errors
/// [`BrokerError`], with the address, directory or limit that was refused.
pub async fn start(config: BrokerConfig) -> Result<RunningBroker, BrokerError> {
    config.check()?;
    let threads = Threads::new()?;
    let kind = config.kind;
    let address = config.listen;
    let opening = match kind {
        Kind::Mqtt5 => threads.spawn(crate::mqtt5::open(config)),
        #[cfg(feature = "rumqttd")]
        Kind::Rumqttd => threads.spawn(crate::rumqttd::open(config)),
    };
    let serving = opening.await.map_err(|lost| died(address, &lost))??;
    tracing::info!(%kind, address = %serving.address, "broker serves");
    Ok(RunningBroker {
        kind,
        address: serving.address,
        shutdown: Some(serving.shutdown),
        finished: serving.finished,
        threads,
    })
}

impl RunningBroker {
    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Which implementation serves.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Ends it: no new connections, the present ones closed, its state written, the port free.
    pub async fn stop(mut self) {
        if let Some(shutdown) = self.shutdown.take() {
            shutdown();
        }
        match tokio::time::timeout(GRACE, &mut self.finished).await {
            Ok(Ok(())) => {
                tracing::info!(kind = %self.kind, address = %self.address, "broker stopped")
            }
            Ok(Err(lost)) => tracing::warn!(%lost, address = %self.address, "broker had died"),
            Err(_) => tracing::warn!(address = %self.address, "broker did not stop in time: cut"),
        }
        self.threads.join().await;
    }
}

impl Drop for RunningBroker {
    fn drop(&mut self) {
        if let Some(shutdown) = self.shutdown.take() {
            shutdown();
        }
    }
}

impl std::fmt::Debug for RunningBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningBroker")
            .field("kind", &self.kind)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Listens on `address` and lets go again, to learn the real port and the plain reason of a
/// refusal: the implementations swallow it or wrap it in advice of their own.
pub(crate) async fn probe(address: SocketAddr) -> Result<SocketAddr, BrokerError> {
    let listening = async { TcpListener::bind(address).await?.local_addr() };
    listening.await.map_err(|source| BrokerError::Listen { address, source })
}

fn died(address: SocketAddr, lost: &JoinError) -> BrokerError {
    BrokerError::Start { address, reason: format!("its task ended: {lost}") }
}

/// A runtime that may be dropped inside another one.
struct Threads(Option<Runtime>);

impl Threads {
    fn new() -> Result<Self, BrokerError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("broker")
            .enable_all()
            .build()
            .map_err(|source| BrokerError::Threads { source })?;
        Ok(Self(Some(runtime)))
    }

    fn spawn<F>(&self, opening: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let runtime = self.0.as_ref();
        runtime.expect("invariant: the threads are there until joined or dropped").spawn(opening)
    }

    /// Waits until the last task is gone, and with it the last socket.
    async fn join(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Dropping a runtime blocks, which only a blocking thread may do.
            let gone = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(GRACE)).await;
            if let Err(lost) = gone {
                tracing::warn!(%lost, "broker's threads did not end cleanly");
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
