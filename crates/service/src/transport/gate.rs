//! Where senders of blobs wait while pieces of theirs queue up in the transport.
//!
//! Nothing else waits here: other messages are small, or few, and a service must go on hearing its
//! callers however slow its broker is.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use protocol::Envelope;
use tokio::sync::Notify;

/// Most bytes of pieces that the broker has not acknowledged before the gate closes.
const BYTES_MAX: usize = 8 << 20;

/// Open while the broker keeps up. All clones are one gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bytes: AtomicUsize,
    eased: Notify,
}

impl Gate {
    /// Waits until there is room for a piece; to be called before it is read.
    pub async fn pass(&self) {
        loop {
            let mut eased = std::pin::pin!(self.0.eased.notified());
            // Listened to from here on, so that no easing is missed between look and wait.
            eased.as_mut().enable();
            if self.bytes() < BYTES_MAX {
                return;
            }
            eased.await;
        }
    }

    /// The pieces that the broker has not acknowledged, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Acquire)
    }

    /// A message is queued.
    pub(super) fn enter(&self, envelope: &Envelope) {
        self.0.bytes.fetch_add(weight(envelope), Ordering::AcqRel);
    }

    /// The broker has it, or it was dropped.
    pub(super) fn leave(&self, envelope: &Envelope) {
        let before = self.0.bytes.fetch_sub(weight(envelope), Ordering::AcqRel);
        if before >= BYTES_MAX {
            self.0.eased.notify_waiters();
        }
    }
}

fn weight(envelope: &Envelope) -> usize {
    if envelope.topic.is_chunk() { envelope.payload.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use protocol::{ModelLine, ModelUri, ModelVersion, Topic};

    use super::*;

    fn chunk(len: usize) -> Envelope {
        let topic = Topic::ModelChunk { uri: ModelUri::global(ModelVersion(1)), index: 0 };
        Envelope { topic, payload: vec![0; len].into() }
    }

    #[test]
    fn the_gate_closes_behind_many_bytes_of_pieces_and_opens_when_they_are_gone() {
        let gate = Gate::default();
        let half = chunk(BYTES_MAX / 2);
        gate.enter(&half);
        assert!(gate.pass().now_or_never().is_some());
        gate.enter(&half);
        let other = gate.clone();
        let mut waiting = [Box::pin(gate.pass()), Box::pin(other.pass())];
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        gate.leave(&half);
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_some(), "all that wait");
        }
    }

    #[test]
    fn other_messages_do_not_count() {
        let gate = Gate::default();
        let model = Envelope {
            topic: Topic::ModelPublish { line: ModelLine::default() },
            ..chunk(2 * BYTES_MAX)
        };
        gate.enter(&model);
        assert_eq!(gate.bytes(), 0);
        assert!(gate.pass().now_or_never().is_some());
        gate.leave(&model);
        assert_eq!(gate.bytes(), 0);
    }
}
