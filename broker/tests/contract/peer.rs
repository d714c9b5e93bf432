//! The independent client of the contract suite: rumqttc in both protocol versions, told apart only where they are made.

use crate::pump::{Message, News, Source, pump_five, pump_four};
use rumqttc::v5::mqttbytes as five;
use rumqttc::{AsyncClient, LastWill, MqttOptions, QoS};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

/// How long a peer waits for one thing to happen before the check has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const PACKET_BYTES_MAX: u32 = 128 * 1024 * 1024;

/// Why a check failed, for a person to read.
pub(crate) type Failure = String;

/// Ends the check with a failure unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($holds:expr, $($why:tt)*) => {
        if !$holds {
            return Err(format!($($why)*));
        }
    };
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Version {
    Four,
    Five,
}

/// A connection about to be made.
pub(crate) struct Dial {
    address: SocketAddr,
    id: String,
    version: Version,
    kept: bool,
    manual_acks: bool,
    will: Option<(String, String)>,
}

/// A connection.
pub(crate) struct Peer {
    client: Client,
    news: UnboundedReceiver<News>,
    inbox: VecDeque<Message>,
    pump: JoinHandle<()>,
    pub(crate) session_present: bool,
}

enum Client {
    Four(AsyncClient),
    Five(rumqttc::v5::AsyncClient),
}

impl Dial {
    pub(crate) fn to(address: SocketAddr, id: &str) -> Self {
        Self {
            address,
            id: id.to_owned(),
            version: Version::Four,
            kept: false,
            manual_acks: false,
            will: None,
        }
    }

    pub(crate) fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// The broker is to remember the session.
    pub(crate) fn kept(mut self) -> Self {
        self.kept = true;
        self
    }

    pub(crate) fn manual_acks(mut self) -> Self {
        self.manual_acks = true;
        self
    }

    pub(crate) fn will(mut self, topic: &str, payload: &str) -> Self {
        self.will = Some((topic.to_owned(), payload.to_owned()));
        self
    }

    pub(crate) async fn connect(self) -> Result<Peer, Failure> {
        let (told, news) = unbounded_channel();
        let id = self.id.clone();
        let (client, pump) = match self.version {
            Version::Four => {
                let (client, mut events) = AsyncClient::new(self.options_four(), 100);
                events.network_options.set_connection_timeout(60);
                (Client::Four(client), tokio::spawn(pump_four(events, told)))
            }
            Version::Five => {
                let (client, events) = rumqttc::v5::AsyncClient::new(self.options_five(), 100);
                (Client::Five(client), tokio::spawn(pump_five(events, told)))
            }
        };
        let inbox = VecDeque::new();
        let mut peer = Peer { client, news, inbox, pump, session_present: false };
        match peer.heard().await? {
            News::Connected { session_present } => peer.session_present = session_present,
            News::Closed(why) => return Err(format!("{id} could not connect: {why}")),
            News::Message(_) | News::Subscribed { .. } | News::Acknowledged => {
                return Err(format!("{id} heard something else before its CONNACK"));
            }
        }
        Ok(peer)
    }

    fn options_four(&self) -> MqttOptions {
        let mut options =
            MqttOptions::new(&self.id, self.address.ip().to_string(), self.address.port());
        options.set_keep_alive(Duration::from_secs(60));
        options.set_clean_session(!self.kept);
        options.set_manual_acks(self.manual_acks);
        options.set_max_packet_size(PACKET_BYTES_MAX as usize, PACKET_BYTES_MAX as usize);
        if let Some((topic, payload)) = &self.will {
            options.set_last_will(LastWill::new(topic, payload.clone(), QoS::AtLeastOnce, false));
        }
        options
    }

    fn options_five(&self) -> rumqttc::v5::MqttOptions {
        let (host, port) = (self.address.ip().to_string(), self.address.port());
        let mut options = rumqttc::v5::MqttOptions::new(&self.id, host, port);
        options.set_keep_alive(Duration::from_secs(60));
        options.set_connection_timeout(60);
        options.set_clean_start(!self.kept);
        if self.kept {
            options.set_session_expiry_interval(Some(3600));
        }
        options.set_manual_acks(self.manual_acks);
        options.set_max_packet_size(Some(PACKET_BYTES_MAX));
        // It understands topics by alias, so the broker may send them so.
        options.set_topic_alias_max(Some(16));
        if let Some((topic, payload)) = &self.will {
            let qos = five::QoS::AtLeastOnce;
            let will = five::v5::LastWill::new(topic, payload.clone(), qos, false, None);
            options.set_last_will(will);
        }
        options
    }
}

impl Peer {
    /// Subscribes with QoS 1 and waits until that is granted.
    pub(crate) async fn subscribe(&mut self, filter: &str) -> Result<(), Failure> {
        self.subscribe_with(filter, QoS::AtLeastOnce).await
    }

    pub(crate) async fn subscribe_with(&mut self, filter: &str, qos: QoS) -> Result<(), Failure> {
        match &self.client {
            Client::Four(client) => client.subscribe(filter, qos).await.map_err(text)?,
            Client::Five(client) => client.subscribe(filter, qos_five(qos)).await.map_err(text)?,
        }
        loop {
            match self.heard().await? {
                News::Subscribed { granted: true } => return Ok(()),
                News::Subscribed { granted: false } => return Err(format!("{filter} not granted")),
                other @ (News::Connected { .. }
                | News::Message(_)
                | News::Acknowledged
                | News::Closed(_)) => self.keep(other)?,
            }
        }
    }

    /// Publishes with QoS 1 and waits for the acknowledgement.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<(), Failure> {
        self.send(topic, payload, Retain::No).await?;
        self.acknowledged(1).await
    }

    /// Publishes retained, with QoS 1, and waits for the acknowledgement.
    pub(crate) async fn retain(&mut self, topic: &str, payload: &[u8]) -> Result<(), Failure> {
        self.send(topic, payload, Retain::Yes).await?;
        self.acknowledged(1).await
    }

    /// Publishes with QoS 1 and does not wait.
    pub(crate) async fn send(
        &self,
        topic: &str,
        payload: &[u8],
        retain: Retain,
    ) -> Result<(), Failure> {
        let (retain, payload) = (retain == Retain::Yes, payload.to_vec());
        match &self.client {
            Client::Four(client) => {
                client.publish(topic, QoS::AtLeastOnce, retain, payload).await.map_err(text)
            }
            Client::Five(client) => {
                client.publish(topic, five::QoS::AtLeastOnce, retain, payload).await.map_err(text)
            }
        }
    }

    /// Publishes with properties, which takes an MQTT 5 peer, and waits for the acknowledgement.
    pub(crate) async fn publish_with(
        &mut self,
        topic: &str,
        payload: &[u8],
        properties: five::v5::PublishProperties,
    ) -> Result<(), Failure> {
        let Client::Five(client) = &self.client else {
            return Err("only an MQTT 5 peer sends properties".to_owned());
        };
        let (qos, payload) = (five::QoS::AtLeastOnce, payload.to_vec());
        let sent = client.publish_with_properties(topic, qos, false, payload, properties);
        sent.await.map_err(text)?;
        self.acknowledged(1).await
    }

    /// Waits for so many acknowledgements of what it sent.
    pub(crate) async fn acknowledged(&mut self, count: usize) -> Result<(), Failure> {
        let mut missing = count;
        while missing > 0 {
            match self.heard().await {
                Ok(News::Acknowledged) => missing -= 1,
                Ok(other) => self.keep(other)?,
                Err(why) => return Err(format!("{missing} of {count} unacknowledged: {why}")),
            }
        }
        Ok(())
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<Message, Failure> {
        loop {
            if let Some(message) = self.inbox.pop_front() {
                return Ok(message);
            }
            let news = self.heard().await?;
            self.keep(news)?;
        }
    }

    /// The messages before the one on this topic, which is the sign that no more can come.
    pub(crate) async fn before(&mut self, fence: &str) -> Result<Vec<Message>, Failure> {
        let mut earlier = Vec::new();
        loop {
            let message = self.next().await?;
            if message.topic == fence {
                return Ok(earlier);
            }
            earlier.push(message);
        }
    }

    /// The next message must be this one.
    pub(crate) async fn expect(&mut self, topic: &str, payload: &[u8]) -> Result<Message, Failure> {
        let message = self.next().await.map_err(|why| format!("no message on {topic}: {why}"))?;
        ensure!(message.topic == topic, "message on {} instead of {topic}", message.topic);
        ensure!(
            message.payload == payload,
            "{} bytes on {topic} differ from the {} expected",
            message.payload.len(),
            payload.len()
        );
        Ok(message)
    }

    /// Acknowledges a message, for a peer with manual acknowledgements.
    pub(crate) async fn acknowledge(&self, message: &Message) -> Result<(), Failure> {
        match (&self.client, &message.source) {
            (Client::Four(client), Source::Four(publish)) => {
                client.ack(publish).await.map_err(text)
            }
            (Client::Five(client), Source::Five(publish)) => {
                client.ack(publish).await.map_err(text)
            }
            _ => Err("the message is another peer's".to_owned()),
        }
    }

    /// Waits until the broker closes the connection.
    pub(crate) async fn closed(mut self) -> Result<(), Failure> {
        loop {
            match self.heard().await? {
                News::Closed(_) => return Ok(()),
                News::Connected { .. } => return Err("it connected again".to_owned()),
                News::Message(_) | News::Subscribed { .. } | News::Acknowledged => {}
            }
        }
    }

    /// Says goodbye and waits until the connection is closed.
    pub(crate) async fn disconnect(self) -> Result<(), Failure> {
        match &self.client {
            Client::Four(client) => client.disconnect().await.map_err(text)?,
            Client::Five(client) => client.disconnect().await.map_err(text)?,
        }
        self.closed().await
    }

    /// Ends as a killed process does: the socket closes, and nothing was said.
    pub(crate) async fn vanish(self) {
        self.pump.abort();
        let _cancelled = self.pump.await;
    }

    async fn heard(&mut self) -> Result<News, Failure> {
        match tokio::time::timeout(PATIENCE, self.news.recv()).await {
            Ok(Some(news)) => Ok(news),
            Ok(None) => Err("the connection is closed".to_owned()),
            Err(_) => Err(format!("nothing heard for {} s", PATIENCE.as_secs())),
        }
    }

    fn keep(&mut self, news: News) -> Result<(), Failure> {
        match news {
            News::Message(message) => self.inbox.push_back(message),
            News::Closed(why) => return Err(format!("the broker closed the connection: {why}")),
            News::Connected { .. } => return Err("a second CONNACK".to_owned()),
            News::Subscribed { .. } | News::Acknowledged => {}
        }
        Ok(())
    }
}

/// Whether the broker is to remember the message for its topic.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Retain {
    Yes,
    No,
}

fn qos_five(qos: QoS) -> five::QoS {
    match qos {
        QoS::AtMostOnce => five::QoS::AtMostOnce,
        QoS::AtLeastOnce => five::QoS::AtLeastOnce,
        QoS::ExactlyOnce => five::QoS::ExactlyOnce,
    }
}

fn text(error: impl std::fmt::Display) -> Failure {
    error.to_string()
}
