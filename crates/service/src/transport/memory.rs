//! A broker in memory, with those properties of MQTT 3.1.1 that the services rely on: retained
//! messages on every subscribe, sessions that queue while their client is away, QoS 1 with
//! redelivery of what was not acknowledged, last wills, and one connection a client id.
//!
//! It refuses to know bytes on a wire, back-off and size limits; a test says when a connection is
//! lost and when it comes back.

mod broker;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use protocol::{Envelope, Filter};
use tokio::sync::Notify;

pub use broker::Broker;

use super::{Gate, Inbound, Receipt, Transport, TransportError, Unacknowledged};
use crate::store::PromiseId;

/// A participant's connection to a [`Broker`]. Dropping it without [`Transport::close`] cuts the
/// connection, so that the broker publishes the last will.
#[derive(Debug)]
pub struct Memory {
    broker: Broker,
    client_id: String,
    /// Which connection this is; a later one of the same client id ends it.
    epoch: u64,
    /// The epoch that the service has been told of.
    told: Option<u64>,
    filters: Vec<Filter>,
    outbox: VecDeque<(Envelope, Option<PromiseId>)>,
    gate: Gate,
    inbox: VecDeque<Inbound>,
    last_will: Option<Envelope>,
    news: Arc<Notify>,
}

impl Memory {
    pub(super) fn new(
        broker: Broker,
        client_id: String,
        last_will: Option<Envelope>,
        news: Arc<Notify>,
    ) -> Self {
        Self {
            broker,
            client_id,
            epoch: 0,
            told: None,
            filters: vec![],
            outbox: VecDeque::new(),
            gate: Gate::default(),
            inbox: VecDeque::new(),
            last_will,
            news,
        }
    }

    /// Brings service and broker up to date with each other.
    fn meet(&mut self) {
        if self.told.is_some() && !self.broker.is_connected(&self.client_id, self.epoch) {
            self.told = None;
            self.inbox.push_back(Inbound::Lost { why: "the broker ended it".to_owned() });
            return;
        }
        if self.told.is_none() {
            let will = self.last_will.clone();
            let Some((epoch, resumed)) = self.broker.connect_session(&self.client_id, will) else {
                return;
            };
            self.epoch = epoch;
            self.told = Some(epoch);
            for filter in &self.filters {
                self.broker.subscribe(&self.client_id, filter.clone());
            }
            self.inbox.push_back(Inbound::Connected { resumed });
        }
        self.flush();
        for (pkid, envelope) in self.broker.take(&self.client_id) {
            let receipt = Receipt(Some(Unacknowledged { epoch: self.epoch, pkid }));
            self.inbox.push_back(Inbound::Message { envelope, receipt });
        }
    }

    /// Says what is queued.
    fn flush(&mut self) {
        while let Some((envelope, promise)) = self.outbox.pop_front() {
            self.gate.leave(&envelope);
            self.broker.publish(envelope);
            self.inbox.extend(promise.map(Inbound::Delivered));
        }
    }
}

impl Transport for Memory {
    fn publish(&mut self, envelope: Envelope, promise: Option<PromiseId>) {
        self.gate.enter(&envelope);
        self.outbox.push_back((envelope, promise));
        if self.broker.is_connected(&self.client_id, self.epoch) {
            self.flush();
        }
        self.news.notify_one();
    }

    fn listen(&mut self, filter: Filter) {
        if self.told.is_some() {
            self.broker.subscribe(&self.client_id, filter.clone());
        }
        self.filters.retain(|held| *held != filter);
        self.filters.push(filter);
        self.news.notify_one();
    }

    fn unlisten(&mut self, filter: &Filter) {
        self.filters.retain(|held| held != filter);
        self.broker.unsubscribe(&self.client_id, filter);
    }

    fn ack(&mut self, receipt: Receipt) {
        if let Some(Unacknowledged { epoch, pkid }) = receipt.0
            && epoch == self.epoch
        {
            self.broker.acknowledge(&self.client_id, epoch, pkid);
        }
    }

    fn backlog(&self) -> usize {
        self.outbox.len()
    }

    fn gate(&self) -> Gate {
        self.gate.clone()
    }

    async fn next(&mut self) -> Result<Inbound, TransportError> {
        loop {
            if let Some(inbound) = self.inbox.pop_front() {
                return Ok(inbound);
            }
            self.meet();
            if self.inbox.is_empty() {
                self.news.notified().await;
            }
        }
    }

    async fn close(mut self, grace: Duration) {
        let flushed = async {
            while !self.outbox.is_empty() {
                let was_away = self.told.is_none();
                self.meet();
                if was_away && !self.outbox.is_empty() {
                    self.news.notified().await;
                }
            }
        };
        let _ = tokio::time::timeout(grace, flushed).await;
        self.broker.disconnect(&self.client_id, self.epoch);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.broker.cut(&self.client_id, self.epoch);
    }
}
