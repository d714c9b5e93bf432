//! Moving envelopes. `mqtt` for real, `memory` for tests; both pass the same contract suite.
//!
//! Contract:
//! - `publish` never waits: it queues. What was queued reaches the broker at least once as long as
//!   this transport lives, across reconnects; a promise is reported with [`Inbound::Delivered`]
//!   when the broker has acknowledged it.
//! - `listen` holds across reconnects: the transport subscribes again whenever the broker has no
//!   session of ours. A retained message comes with every new `listen`.
//! - An inbound message is acknowledged to the broker by `ack`, not before; what was not
//!   acknowledged comes again after a reconnect.
//! - `next` is cancel-safe: dropping the future loses nothing.
//! - A message on a topic that is not ours, or with a payload over the limit, is acknowledged,
//!   counted and logged here; it never reaches a machine.

mod gate;
mod inspected;
pub mod memory;
pub mod mqtt;

use std::future::Future;

use protocol::{Envelope, Filter};

pub use gate::Gate;
pub use inspected::{Inspected, Inspector};

use crate::store::PromiseId;

/// A participant's way to the broker.
pub trait Transport: Send {
    /// Queues `envelope`; `promise` comes back once the broker has it.
    fn publish(&mut self, envelope: Envelope, promise: Option<PromiseId>);

    /// Subscribes, now and after every reconnect.
    fn listen(&mut self, filter: Filter);

    /// Takes a subscription back.
    fn unlisten(&mut self, filter: &Filter);

    /// Tells the broker that this message has been dealt with, durably.
    fn ack(&mut self, receipt: Receipt);

    /// How many queued messages the broker has not acknowledged.
    fn backlog(&self) -> usize;

    /// What a sender of blobs waits at.
    fn gate(&self) -> Gate;

    /// What happens next on this connection.
    fn next(&mut self) -> impl Future<Output = Result<Inbound, TransportError>> + Send;

    /// Says goodbye to the broker (no last will), after handing over what is queued, within
    /// `grace`.
    fn close(self, grace: std::time::Duration) -> impl Future<Output = ()> + Send;
}

/// A lost connection is news like any other, not a magic topic.
#[derive(Clone, Debug, PartialEq)]
pub enum Inbound {
    Message { envelope: Envelope, receipt: Receipt },
    Connected { resumed: bool },
    Delivered(PromiseId),
    Lost { why: String },
}

/// What it takes to acknowledge one message; nothing, if the broker does not wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt(pub(crate) Option<Unacknowledged>);

/// A packet id, and the connection on which it means this message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unacknowledged {
    pub(crate) epoch: u64,
    pub(crate) pkid: u16,
}

/// The transport cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("the transport is closed")]
    Closed,
}
