//! One connection, from its attempt to its end; the next one is another link.
//!
//! A task of its own polls the client's event loop and does nothing else: it never publishes, and
//! it waits only when more has come in than anyone has taken out. That stops reading, so the
//! broker waits as well; taking out never depends on this task.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions,
    Outgoing, Packet, Publish, QoS, SubscribeFilter, SubscribeReasonCode, TlsConfiguration,
    Transport as Way,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::AbortHandle,
};

use super::{Config, SessionKind, promptness::Promptness, tls};
use crate::settings::Scheme;

/// The largest packet that MQTT can express.
pub(super) const PACKET_BYTES_MAX: usize = 268_435_455;
/// Most bytes that were read and not taken out; a larger message comes alone.
pub(super) const INTAKE_BYTES_MAX: usize = 64 << 20;
/// What a message costs beside its payload.
const MESSAGE_BYTES: usize = 256;
const CONNECT_TIMEOUT_S: u64 = 10;
/// A send takes as long as it takes, up to where every broker has given up.
const SEND_TIMEOUT_S_MIN: u64 = 120;
/// The client's queue never fills: what is handed over is bounded by the outbox's window, and
/// acknowledgements by the packet ids there are.
const REQUESTS_MAX: usize = 1 << 18;
/// Packet ids in turn; more than are ever under way.
const PACKET_IDS: u16 = 512;

/// What happens on a connection.
#[derive(Debug)]
pub(super) enum Wire {
    Connected {
        resumed: bool,
    },
    Message {
        message: Publish,
        room: OwnedSemaphorePermit,
    },
    /// The next publish that was handed over went out under this packet id.
    Sent(u16),
    Acknowledged(u16),
    SubscribeSent(u16),
    /// `refused` has one entry a filter.
    Subscribed {
        pkid: u16,
        refused: Vec<bool>,
    },
    Lost {
        why: String,
    },
}

/// A handle on one connection; dropping it cuts the connection.
#[derive(Debug)]
pub(super) struct Link {
    client: AsyncClient,
    events: mpsc::UnboundedReceiver<Wire>,
    poller: AbortHandle,
}

impl Link {
    pub(super) fn open(config: &Config, intake: Arc<Semaphore>) -> Self {
        let (client, mut event_loop) = AsyncClient::new(options(config), REQUESTS_MAX);
        event_loop.network_options.set_connection_timeout(CONNECT_TIMEOUT_S);
        event_loop.network_options.set_tcp_nodelay(true);
        let send_timeout_s = (config.keep_alive.as_secs() * 2).max(SEND_TIMEOUT_S_MIN);
        let (wire, events) = mpsc::unbounded_channel();
        let patience = (config.address.port, send_timeout_s);
        let poller = tokio::spawn(poll(event_loop, wire, intake, patience)).abort_handle();
        Self { client, events, poller }
    }

    /// What happens next; cancel-safe.
    pub(super) async fn next(&mut self) -> Wire {
        let gone = || Wire::Lost { why: "the connection's task ended".to_owned() };
        self.events.recv().await.unwrap_or_else(gone)
    }

    // The client's errors below mean that the link is lost, which `next` says.

    pub(super) async fn publish(&self, topic: String, retain: bool, payload: Bytes) {
        let _ = self.client.publish_bytes(topic, QoS::AtLeastOnce, retain, payload).await;
    }

    pub(super) async fn subscribe(&self, filters: Vec<String>) {
        let filters = filters.into_iter().map(|f| SubscribeFilter::new(f, QoS::AtLeastOnce));
        let _ = self.client.subscribe_many(filters).await;
    }

    pub(super) async fn unsubscribe(&self, filter: String) {
        let _ = self.client.unsubscribe(filter).await;
    }

    pub(super) async fn acknowledge(&self, pkid: u16) {
        let mut publish = Publish::from_bytes("", QoS::AtLeastOnce, Bytes::new());
        publish.pkid = pkid;
        let _ = self.client.ack(&publish).await;
    }

    pub(super) async fn disconnect(&self) {
        let _ = self.client.disconnect().await;
    }

    /// Waits until the connection is gone: the broker ends it when it has dealt with everything
    /// up to our DISCONNECT.
    pub(super) async fn ended(&mut self) {
        while let Some(wire) = self.events.recv().await {
            if let Wire::Lost { .. } = wire {
                return;
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

async fn poll(
    mut event_loop: EventLoop,
    wire: mpsc::UnboundedSender<Wire>,
    intake: Arc<Semaphore>,
    (port, send_timeout_s): (u16, u64),
) {
    let mut promptness = None;
    loop {
        let event = event_loop.poll().await;
        if let (Some(sockets), Ok(Event::Incoming(_))) = (&promptness, &event) {
            Promptness::ask(sockets);
        }
        let news = match event {
            Ok(Event::Incoming(packet)) => match packet {
                Packet::ConnAck(answer) => {
                    promptness = Some(Promptness::towards(port));
                    event_loop.network_options.set_connection_timeout(send_timeout_s);
                    Wire::Connected { resumed: answer.session_present }
                }
                Packet::Publish(message) => {
                    let room = room_for(&message, &intake).await;
                    Wire::Message { message, room }
                }
                Packet::PubAck(answer) => Wire::Acknowledged(answer.pkid),
                Packet::SubAck(answer) => Wire::Subscribed {
                    pkid: answer.pkid,
                    refused: answer
                        .return_codes
                        .iter()
                        .map(|code| matches!(code, SubscribeReasonCode::Failure))
                        .collect(),
                },
                Packet::Connect(_)
                | Packet::PubRec(_)
                | Packet::PubRel(_)
                | Packet::PubComp(_)
                | Packet::Subscribe(_)
                | Packet::Unsubscribe(_)
                | Packet::UnsubAck(_)
                | Packet::PingReq
                | Packet::PingResp
                | Packet::Disconnect => continue,
            },
            Ok(Event::Outgoing(Outgoing::Publish(pkid))) => Wire::Sent(pkid),
            Ok(Event::Outgoing(Outgoing::Subscribe(pkid))) => Wire::SubscribeSent(pkid),
            Ok(Event::Outgoing(_)) => continue,
            Err(error) => {
                let _ = wire.send(Wire::Lost { why: explain(&error) });
                return;
            }
        };
        if wire.send(news).is_err() {
            return;
        }
    }
}

async fn room_for(message: &Publish, intake: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let bytes = (message.payload.len() + MESSAGE_BYTES).min(INTAKE_BYTES_MAX);
    let bytes = u32::try_from(bytes).expect("the intake is smaller than 4 GiB");
    Arc::clone(intake).acquire_many_owned(bytes).await.expect("the intake is never closed")
}

/// What the client takes for a host, and how bytes travel there.
pub(super) fn way(config: &Config) -> (String, Way) {
    let address = &config.address;
    let tls =
        || TlsConfiguration::Rustls(config.tls.client().expect("encrypted addresses have it"));
    match address.scheme {
        Scheme::Tcp => (address.host.clone(), Way::Tcp),
        Scheme::Tls => (address.host.clone(), Way::tls_with_config(tls())),
        Scheme::WebSocket => (address.to_string(), Way::Ws),
        Scheme::WebSocketTls => (address.to_string(), Way::wss_with_config(tls())),
    }
}

fn options(config: &Config) -> MqttOptions {
    let (host, way) = way(config);
    let mut options = MqttOptions::new(config.client_id.clone(), host, config.address.port);
    options.set_transport(way);
    options
        .set_clean_session(config.session == SessionKind::Transient)
        .set_keep_alive(config.keep_alive.max(Duration::from_secs(1)))
        .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX + 5)
        .set_inflight(PACKET_IDS)
        .set_manual_acks(true);
    if let Some(who) = &config.credentials {
        let password = who.password.as_ref().map_or("", |password| password.expose());
        options.set_credentials(&who.username, password);
    }
    if let Some(will) = &config.last_will {
        let topic = config.namespace.render(&will.topic);
        let retain = will.topic.is_retained();
        options.set_last_will(LastWill::new(topic, will.payload.clone(), QoS::AtLeastOnce, retain));
    }
    options
}

/// The error in words that help whoever set this up.
fn explain(error: &ConnectionError) -> String {
    let ConnectionError::ConnectionRefused(code) = error else {
        return tls::explain(error).unwrap_or_else(|| error.to_string());
    };
    match code {
        ConnectReturnCode::BadUserNamePassword => {
            "it refuses the user name or the password (mqtt_username, client_key)".to_owned()
        }
        ConnectReturnCode::NotAuthorized => {
            "it does not let this client in (client_id, mqtt_username, client_key)".to_owned()
        }
        ConnectReturnCode::BadClientId => "it refuses the client id (client_id)".to_owned(),
        ConnectReturnCode::RefusedProtocolVersion => "it does not speak MQTT 3.1.1".to_owned(),
        ConnectReturnCode::ServiceUnavailable => "it says that it is not available".to_owned(),
        ConnectReturnCode::Success => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_settings_to_look_at() {
        let refused = |code| explain(&ConnectionError::ConnectionRefused(code));
        let password = refused(ConnectReturnCode::BadUserNamePassword);
        assert!(password.contains("mqtt_username") && password.contains("client_key"));
        assert!(refused(ConnectReturnCode::NotAuthorized).contains("client_id"));
        let gone = ConnectionError::Io(std::io::ErrorKind::ConnectionRefused.into());
        assert!(explain(&gone).contains("connection refused"), "{}", explain(&gone));
    }
}
