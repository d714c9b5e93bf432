//! Signs the updates of a proplet on their way to the broker, so that nobody between it and the
//! coordinator can forge one.

use std::time::Duration;

use access::SigningKey;
use protocol::{
    Envelope, Filter, Topic,
    message::{signed_facts, with_signature},
};
use service::{Gate, Inbound, PromiseId, Receipt, Transport, TransportError};

/// A transport that signs, if there is a key.
#[derive(Debug)]
pub(crate) struct Signing<T> {
    inner: T,
    key: Option<SigningKey>,
}

impl<T> Signing<T> {
    pub(crate) const fn new(inner: T, key: Option<SigningKey>) -> Self {
        Self { inner, key }
    }

    /// The same update gets the same signature, however often it is said.
    fn signed(&self, envelope: Envelope) -> Envelope {
        let (Some(key), Topic::RoundUpdate { round, proplet }) = (&self.key, &envelope.topic)
        else {
            return envelope;
        };
        let facts = signed_facts(&envelope.payload, round, proplet);
        let signed = facts.and_then(|facts| {
            let signature = key.sign(&facts.statement);
            with_signature(&envelope.payload, &signature).ok_or_else(|| "no room".to_owned())
        });
        match signed {
            Ok(payload) => Envelope { payload, topic: envelope.topic },
            Err(why) => {
                tracing::error!(%round, "an update goes out unsigned: {why}");
                envelope
            }
        }
    }
}

impl<T: Transport> Transport for Signing<T> {
    fn publish(&mut self, envelope: Envelope, promise: Option<PromiseId>) {
        let envelope = self.signed(envelope);
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
        self.inner.next().await
    }

    async fn close(self, grace: Duration) {
        self.inner.close(grace).await;
    }
}
