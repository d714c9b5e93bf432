//! What a transport is tested on: a broker, connections to it, and somebody who cuts them.

use std::{future::Future, net::SocketAddr, time::Duration};

use protocol::{Envelope, Filter, Namespace, Topic};
use service::{
    Inbound, PromiseId, Receipt, Transport,
    transport::{
        memory::{Broker, Memory},
        mqtt::{Config, Mqtt},
    },
};

use crate::{mosquitto::Mosquitto, proxy::Proxy};

/// Longer than any machine needs; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) trait Ground: Sized {
    type Connection: Transport;

    fn start() -> impl Future<Output = Self>;
    fn connect_with(&self, client_id: &str, will: Option<Envelope>) -> Self::Connection;
    /// Ends every connection, keeps sessions, lets nobody in.
    fn down(&self);
    fn up(&self);

    fn connect(&self, client_id: &str) -> Self::Connection {
        self.connect_with(client_id, None)
    }
}

pub(crate) struct MemoryGround(Broker);

impl Ground for MemoryGround {
    type Connection = Memory;

    async fn start() -> Self {
        Self(Broker::default())
    }

    fn connect_with(&self, client_id: &str, will: Option<Envelope>) -> Memory {
        self.0.connect(client_id, will)
    }

    fn down(&self) {
        self.0.stop();
    }

    fn up(&self) {
        self.0.resume();
    }
}

pub(crate) struct EmbeddedGround {
    proxy: Proxy,
    _broker: broker::RunningBroker,
}

impl Ground for EmbeddedGround {
    type Connection = Mqtt;

    async fn start() -> Self {
        let _broker = embedded(broker::PACKET_BYTES_MAX).await;
        Self { proxy: Proxy::start(_broker.address()).await, _broker }
    }

    fn connect_with(&self, client_id: &str, will: Option<Envelope>) -> Mqtt {
        connect(self.proxy.address, client_id, will)
    }

    fn down(&self) {
        self.proxy.down();
    }

    fn up(&self) {
        self.proxy.up();
    }
}

pub(crate) struct MosquittoGround {
    proxy: Proxy,
    _broker: Mosquitto,
}

impl Ground for MosquittoGround {
    type Connection = Mqtt;

    async fn start() -> Self {
        let _broker = Mosquitto::start("allow_anonymous true\nmax_queued_messages 0");
        Self { proxy: Proxy::start(_broker.address).await, _broker }
    }

    fn connect_with(&self, client_id: &str, will: Option<Envelope>) -> Mqtt {
        connect(self.proxy.address, client_id, will)
    }

    fn down(&self) {
        self.proxy.down();
    }

    fn up(&self) {
        self.proxy.up();
    }
}

pub(crate) async fn embedded(packet_bytes_max: usize) -> broker::RunningBroker {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = broker::BrokerConfig { listen, packet_bytes_max, ..Default::default() };
    broker::start(config).await.unwrap()
}

fn connect(to: SocketAddr, client_id: &str, will: Option<Envelope>) -> Mqtt {
    Mqtt::connect(Config { last_will: will, ..config(to, client_id) })
}

pub(crate) fn config(to: SocketAddr, client_id: &str) -> Config {
    let namespace = Namespace::new("site", &"d".parse().unwrap(), &"c".parse().unwrap()).unwrap();
    Config::new(format!("tcp://{to}").parse().unwrap(), client_id, namespace)
}

pub(crate) fn envelope(topic: Topic, payload: impl Into<Vec<u8>>) -> Envelope {
    Envelope { topic, payload: payload.into().into() }
}

/// Takes what comes until `wanted` finds what it wants.
pub(crate) async fn until<T, F, R>(transport: &mut T, mut wanted: F) -> R
where
    T: Transport,
    F: FnMut(Inbound) -> Option<R>,
{
    let mut passed = vec![];
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            let inbound = transport.next().await.unwrap();
            passed.push(format!("{inbound:?}").chars().take(200).collect::<String>());
            if let Some(found) = wanted(inbound) {
                return found;
            }
        }
    });
    let found = found.await;
    found.unwrap_or_else(|_| panic!("what was waited for did not come, only {passed:?}"))
}

/// Waits for a connection; nothing may come before it. Returns whether it was resumed.
pub(crate) async fn connected<T: Transport>(transport: &mut T) -> bool {
    until(transport, |inbound| match inbound {
        Inbound::Connected { resumed } => Some(resumed),
        Inbound::Lost { .. } | Inbound::Delivered(_) => None,
        Inbound::Message { .. } => panic!("a message before the connection: {inbound:?}"),
    })
    .await
}

pub(crate) async fn message<T: Transport>(transport: &mut T) -> (Envelope, Receipt) {
    until(transport, |inbound| match inbound {
        Inbound::Message { envelope, receipt } => Some((envelope, receipt)),
        Inbound::Connected { .. } | Inbound::Lost { .. } | Inbound::Delivered(_) => None,
    })
    .await
}

pub(crate) async fn delivered<T: Transport>(transport: &mut T) -> PromiseId {
    until(transport, |inbound| match inbound {
        Inbound::Delivered(id) => Some(id),
        Inbound::Connected { .. } | Inbound::Lost { .. } | Inbound::Message { .. } => None,
    })
    .await
}

pub(crate) async fn lost<T: Transport>(transport: &mut T) -> String {
    until(transport, |inbound| match inbound {
        Inbound::Lost { why } => Some(why),
        Inbound::Connected { .. } | Inbound::Delivered(_) | Inbound::Message { .. } => None,
    })
    .await
}

/// A connection that hears `topic`.
pub(crate) async fn listener<G: Ground>(
    ground: &G,
    client_id: &str,
    topic: Topic,
) -> G::Connection {
    let mut transport = ground.connect(client_id);
    transport.listen(Filter::Exactly(topic));
    connected(&mut transport).await;
    transport
}
