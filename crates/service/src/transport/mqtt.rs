//! MQTT 3.1.1 through rumqttc.
//!
//! The only module that knows that crate. A connection is used once: when it ends, a new client is
//! made, and everything that was not acknowledged is sent again by [`outbox`], everything that the
//! broker does not remember is subscribed to again by [`subscriptions`].

mod config;
mod counts;
mod link;
mod outbox;
mod patience;
mod probe;
mod promptness;
mod session;
mod subscriptions;
mod tls;
pub mod visit;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use protocol::{Envelope, Filter};
use tokio::sync::{mpsc, oneshot};

pub use config::{Config, Credentials, SessionKind};
pub(crate) use counts::Counters;
pub use counts::Counts;
pub use probe::{ProbeError, probe};
pub use tls::{Tls, TlsFiles};

use self::session::{Command, Delivery, Session, Shared};
use super::{Gate, Inbound, Receipt, Transport, TransportError};
use crate::{figures::Traffic, store::PromiseId};

/// A participant's connection to a broker, held up for ever. Dropping it without
/// [`Transport::close`] cuts the connection, so that the broker publishes the last will.
#[derive(Debug)]
pub struct Mqtt {
    commands: mpsc::UnboundedSender<Command>,
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    shared: Shared,
}

impl Mqtt {
    /// Begins to connect, and returns at once; a broker that is not there is waited for.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn connect(config: Config) -> Self {
        let (commands, obeyed) = mpsc::unbounded_channel();
        let (sent, deliveries) = mpsc::unbounded_channel();
        let shared = Shared::default();
        tokio::spawn(Session::new(config, shared.clone(), obeyed, sent).run());
        Self { commands, deliveries, shared }
    }

    /// What this connection has seen so far.
    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }

    /// The same for Prometheus, going on.
    pub fn traffic(&self) -> Traffic {
        Traffic(Arc::clone(&self.shared.counters))
    }

    /// Why there is no connection, while there is none.
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.borrow().clone()
    }

    fn command(&self, command: Command) {
        // The session ends only after this handle.
        let _ = self.commands.send(command);
    }
}

impl Transport for Mqtt {
    fn publish(&mut self, envelope: Envelope, promise: Option<PromiseId>) {
        self.shared.backlog.fetch_add(1, Ordering::Relaxed);
        self.shared.gate.enter(&envelope);
        self.command(Command::Publish(envelope, promise));
    }

    fn listen(&mut self, filter: Filter) {
        self.command(Command::Listen(filter));
    }

    fn unlisten(&mut self, filter: &Filter) {
        self.command(Command::Unlisten(filter.clone()));
    }

    fn ack(&mut self, receipt: Receipt) {
        if let Some(receipt) = receipt.0 {
            self.command(Command::Acknowledge(receipt));
        }
    }

    fn backlog(&self) -> usize {
        self.shared.backlog.load(Ordering::Relaxed)
    }

    fn gate(&self) -> Gate {
        self.shared.gate.clone()
    }

    async fn next(&mut self) -> Result<Inbound, TransportError> {
        let delivery = self.deliveries.recv().await.ok_or(TransportError::Closed)?;
        drop(delivery.room);
        Ok(delivery.inbound)
    }

    async fn close(self, grace: Duration) {
        // Nobody takes out what comes in from now on, and nothing must wait for that.
        drop(self.deliveries);
        let (done, finished) = oneshot::channel();
        let _ = self.commands.send(Command::Close { grace, done });
        let _ = finished.await;
    }
}
