//! A short visit to a broker, one step at a time, for whoever wants to know which step fails.
//!
//! Visits speak MQTT 5, where a broker says what it does not allow; in 3.1.1, which the services
//! speak, it keeps silent.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use protocol::{Envelope, Filter};
use rumqttc::v5::{
    AsyncClient, Event, EventLoop,
    mqttbytes::{
        QoS,
        v5::{Packet, PubAckReason, SubscribeReasonCode},
    },
};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::{Config, probe, tls};
use crate::settings::MqttAddress;

/// How long a step may take.
const STEP_MAX: Duration = Duration::from_secs(10);
const REQUESTS_MAX: usize = 64;

/// Why a step came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    #[error("no answer within {} s", STEP_MAX.as_secs())]
    Silence,
    #[error("{0}")]
    Failed(String),
}

/// A connection that is used for a few questions.
pub struct Visit {
    namespace: protocol::Namespace,
    client: AsyncClient,
    event_loop: EventLoop,
    heard: Vec<(String, Bytes)>,
}

impl std::fmt::Debug for Visit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visit").finish_non_exhaustive()
    }
}

/// The addresses behind a broker's name.
pub async fn resolve(address: &MqttAddress) -> Result<Vec<SocketAddr>, VisitError> {
    let host = address.host.trim_matches(['[', ']']);
    let found = step(async { lookup_host((host, address.port)).await }).await?;
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() {
        return Err(VisitError::Failed("the name has no address".to_owned()));
    }
    Ok(found)
}

/// A connection to one of them. Where there is none, whoever has refused one says more than a
/// network that this machine has not got.
pub async fn dial(addresses: &[SocketAddr]) -> Result<TcpStream, VisitError> {
    step(async {
        let mut why = None;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) if is_refusal(&error) || !why.as_ref().is_some_and(is_refusal) => {
                    why = Some(error);
                }
                Err(_) => {}
            }
        }
        Err(why.unwrap_or_else(|| io::Error::other("there is no address")))
    })
    .await
}

fn is_refusal(why: &io::Error) -> bool {
    why.kind() == io::ErrorKind::ConnectionRefused
}

/// The broker's certificate (DER) after a handshake; nothing where the connection is plain. What
/// the broker thinks of ours is only said afterwards.
pub async fn shake(config: &Config, stream: TcpStream) -> Result<Option<Vec<u8>>, VisitError> {
    let Some(client) = config.tls.client() else { return Ok(None) };
    let host = config.address.host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|why| VisitError::Failed(why.to_string()))?;
    let shaken = step(TlsConnector::from(client).connect(name, stream)).await?;
    let shown = shaken.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    Ok(shown.map(|certificate| certificate.to_vec()))
}

impl Visit {
    /// Connects, beside whoever is connected with the same settings already.
    pub async fn begin(config: &Config) -> Result<Self, VisitError> {
        let (client, event_loop) =
            AsyncClient::new(probe::options(config, "preflight"), REQUESTS_MAX);
        let namespace = config.namespace.clone();
        let mut visit = Self { namespace, client, event_loop, heard: vec![] };
        visit.until(|packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await?;
        Ok(visit)
    }

    /// Whether the broker takes a subscription.
    pub async fn may_listen(&mut self, filter: &Filter) -> Result<bool, VisitError> {
        let filter = self.namespace.render_filter(filter);
        self.client.subscribe(filter, QoS::AtLeastOnce).await.map_err(|why| failed(&why))?;
        self.until(|packet| {
            let Packet::SubAck(answer) = packet else { return None };
            let is_taken = |code: &_| matches!(code, SubscribeReasonCode::Success(_));
            Some(answer.return_codes.iter().all(is_taken))
        })
        .await
    }

    /// Whether the broker takes a message from us.
    pub async fn may_say(&mut self, envelope: Envelope) -> Result<bool, VisitError> {
        let topic = self.namespace.render(&envelope.topic);
        let said = self.client.publish(topic, QoS::AtLeastOnce, false, envelope.payload);
        said.await.map_err(|why| failed(&why))?;
        self.until(|packet| {
            let Packet::PubAck(answer) = packet else { return None };
            Some(matches!(
                answer.reason,
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers
            ))
        })
        .await
    }

    /// What is heard on a topic, now or within `patience`.
    pub async fn hear(
        &mut self,
        topic: &protocol::Topic,
        patience: Duration,
    ) -> Result<Option<Bytes>, VisitError> {
        let topic = self.namespace.render(topic);
        let find = |heard: &[(String, Bytes)]| {
            heard.iter().find(|(on, _)| *on == topic).map(|(_, payload)| payload.clone())
        };
        if let Some(payload) = find(&self.heard) {
            return Ok(Some(payload));
        }
        let coming = timeout(patience, async {
            loop {
                self.next().await?;
                if let Some(payload) = find(&self.heard) {
                    return Ok(payload);
                }
            }
        });
        coming.await.map_or(Ok(None), |heard| heard.map(Some))
    }

    /// Takes leave.
    pub async fn end(mut self) {
        if self.client.disconnect().await.is_ok() {
            let moment = Duration::from_millis(100);
            while timeout(moment, self.event_loop.poll()).await.is_ok_and(|it| it.is_ok()) {}
        }
    }

    async fn until<T>(&mut self, look: impl Fn(&Packet) -> Option<T>) -> Result<T, VisitError> {
        let found = timeout(STEP_MAX, async {
            loop {
                if let Some(packet) = self.next().await?
                    && let Some(found) = look(&packet)
                {
                    return Ok(found);
                }
            }
        });
        found.await.map_err(|_| VisitError::Silence)?
    }

    async fn next(&mut self) -> Result<Option<Packet>, VisitError> {
        match self.event_loop.poll().await {
            Ok(Event::Incoming(Packet::Publish(message))) => {
                let topic = String::from_utf8_lossy(&message.topic).into_owned();
                self.heard.push((topic, message.payload));
                Ok(None)
            }
            Ok(Event::Incoming(packet)) => Ok(Some(packet)),
            Ok(Event::Outgoing(_)) => Ok(None),
            Err(why) => Err(failed(&why)),
        }
    }
}

async fn step<T>(work: impl Future<Output = io::Result<T>>) -> Result<T, VisitError> {
    match timeout(STEP_MAX, work).await {
        Ok(done) => done.map_err(|why| failed(&why)),
        Err(_) => Err(VisitError::Silence),
    }
}

fn failed(why: &(dyn std::error::Error + 'static)) -> VisitError {
    VisitError::Failed(tls::explain(why).unwrap_or_else(|| why.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refusal_is_told_before_a_network_that_is_not_there() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // Everybody's address is no one's.
        let nowhere: SocketAddr = "255.255.255.255:1".parse().unwrap();
        for addresses in [[closed, nowhere], [nowhere, closed]] {
            let why = dial(&addresses).await.unwrap_err().to_string();
            assert!(why.contains("refused"), "{why}");
        }
    }
}
