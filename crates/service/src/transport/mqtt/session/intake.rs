//! What comes in, sorted: for the service, or acknowledged, counted and dropped here.

use protocol::{Envelope, Topic};
use rumqttc::{Publish, QoS};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    super::{
        counts::{bump, weigh},
        link::{INTAKE_BYTES_MAX, Link},
    },
    Delivery, Phase, Session,
};
use crate::{Inbound, Receipt, transport::Unacknowledged};

impl Session {
    pub(super) async fn take_in(
        &mut self,
        message: Publish,
        room: OwnedSemaphorePermit,
        link: &Link,
    ) {
        bump(&self.shared.counters.received);
        weigh(&self.shared.counters.received_bytes, &message.topic, &message.payload);
        let receipt = match message.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce => {
                Some(Unacknowledged { epoch: self.epoch, pkid: message.pkid })
            }
        };
        match self.sort(message) {
            Some(envelope) => {
                let len = envelope.payload.len();
                let inbound = Inbound::Message { envelope, receipt: Receipt(receipt) };
                self.pass_on(Delivery { inbound, room: Some(room) }, len);
            }
            None => {
                if let Some(receipt) = receipt {
                    link.acknowledge(receipt.pkid).await;
                }
            }
        }
    }

    /// The message as an envelope, if it is for the service.
    fn sort(&self, message: Publish) -> Option<Envelope> {
        let len = message.payload.len();
        let topic = match self.config.namespace.parse(&message.topic) {
            Ok(topic) => topic,
            Err(why) => {
                let count = bump(&self.shared.counters.foreign);
                if count.is_power_of_two() {
                    tracing::warn!(%why, count, "ignored a message on a foreign topic");
                }
                return None;
            }
        };
        if len > self.config.payload_bytes_max && !is_answered_when_too_large(&topic) {
            let count = bump(&self.shared.counters.oversize);
            if count.is_power_of_two() {
                let len_max = self.config.payload_bytes_max;
                tracing::warn!(%topic, len, len_max, count, "ignored a message that is too large");
            }
            return None;
        }
        Some(Envelope { topic, payload: message.payload })
    }

    fn pass_on(&mut self, delivery: Delivery, len: usize) {
        if let Phase::Subscribing { held, held_bytes, .. } = &mut self.phase {
            held.push(delivery);
            *held_bytes += len;
            // The answer to the subscriptions may stand behind more than the intake can hold, and
            // would never be read if all of it were held back.
            if *held_bytes < INTAKE_BYTES_MAX / 2 && held.len() < HELD_MAX {
                return;
            }
            *held_bytes = 0;
            for delivery in std::mem::take(held) {
                let _ = self.deliveries.send(delivery);
            }
            return;
        }
        let _ = self.deliveries.send(delivery);
    }
}

/// Most messages that wait for the answer to the subscriptions.
const HELD_MAX: usize = 10_000;

/// Updates are judged, and their sender told, however large they are.
fn is_answered_when_too_large(topic: &Topic) -> bool {
    matches!(topic, Topic::RoundUpdate { .. } | Topic::ForwardedUpdate)
}
