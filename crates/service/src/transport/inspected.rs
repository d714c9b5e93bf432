//! A transport whose messages somebody looks at on their way: to sign what goes out, to check what
//! comes in.

use std::time::Duration;

use protocol::{Envelope, Filter};

use super::{Gate, Inbound, Receipt, Transport, TransportError};
use crate::store::PromiseId;

/// Looks at every message; what it does not care for it hands on as it is.
pub trait Inspector: Send {
    /// What goes out in place of a message.
    fn outbound(&self, envelope: Envelope) -> Envelope {
        envelope
    }

    /// What comes in in place of a message.
    fn inbound(&self, envelope: Envelope) -> Envelope {
        envelope
    }
}

/// A transport behind an [`Inspector`]. Receipts, promises and the order of messages are untouched.
#[derive(Debug)]
pub struct Inspected<T, I> {
    inner: T,
    inspector: I,
}

impl<T, I> Inspected<T, I> {
    pub const fn new(inner: T, inspector: I) -> Self {
        Self { inner, inspector }
    }
}

impl<T: Transport, I: Inspector> Transport for Inspected<T, I> {
    fn publish(&mut self, envelope: Envelope, promise: Option<PromiseId>) {
        let envelope = self.inspector.outbound(envelope);
        self.inner.publish(envelope, promise);
    }

    fn listen(&mut self, filter: Filter) {
        self.inner.listen(filter);
    }

    fn unlisten(&mut self, filter: &Filter) {
        self.inner.unlisten(filter);
    }

    fn ack(&mut self, receipt: Receipt) {
        self.inner.ack(receipt);
    }

    fn backlog(&self) -> usize {
        self.inner.backlog()
    }

    fn gate(&self) -> Gate {
        self.inner.gate()
    }

    async fn next(&mut self) -> Result<Inbound, TransportError> {
        Ok(match self.inner.next().await? {
            Inbound::Message { envelope, receipt } => {
                Inbound::Message { envelope: self.inspector.inbound(envelope), receipt }
            }
            other @ (Inbound::Connected { .. } | Inbound::Delivered(_) | Inbound::Lost { .. }) => {
                other
            }
        })
    }

    async fn close(self, grace: Duration) {
        self.inner.close(grace).await;
    }
}
