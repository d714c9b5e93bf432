//! Translates what rumqttc hears, in either version, into one form for the checks.

use rumqttc::v5::mqttbytes as five;
use rumqttc::{Event, EventLoop, Packet, Publish};
use std::collections::BTreeMap;
use tokio::sync::mpsc::UnboundedSender;

/// One application message as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) retained: bool,
    pub(crate) user_properties: Vec<(String, String)>,
    pub(crate) source: Source,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    Four(Publish),
    Five(Box<five::v5::Publish>),
}

/// What a connection heard, whatever its version.
pub(crate) enum News {
    Connected { session_present: bool },
    Message(Message),
    Subscribed { granted: bool },
    Acknowledged,
    Closed(String),
}

/// Reads until the connection ends; never reconnects, since a check must see every end.
pub(crate) async fn pump_four(mut events: EventLoop, told: UnboundedSender<News>) {
    loop {
        let news = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                News::Connected { session_present: ack.session_present }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => News::Message(of_four(publish)),
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                let failed = |code| code == &rumqttc::SubscribeReasonCode::Failure;
                News::Subscribed { granted: !ack.return_codes.iter().any(failed) }
            }
            Ok(Event::Incoming(Packet::PubAck(_))) => News::Acknowledged,
            Ok(_) => continue,
            Err(error) => News::Closed(error.to_string()),
        };
        let last = matches!(news, News::Closed(_));
        if told.send(news).is_err() || last {
            return;
        }
    }
}

pub(crate) async fn pump_five(mut events: rumqttc::v5::EventLoop, told: UnboundedSender<News>) {
    use five::v5::{Packet, SubscribeReasonCode};
    use rumqttc::v5::Event;
    let mut aliases = BTreeMap::new();
    loop {
        let news = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                News::Connected { session_present: ack.session_present }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                News::Message(of_five(publish, &mut aliases))
            }
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                let good = |code: &_| matches!(code, SubscribeReasonCode::Success(_));
                News::Subscribed { granted: ack.return_codes.iter().all(good) }
            }
            Ok(Event::Incoming(Packet::PubAck(_))) => News::Acknowledged,
            Ok(_) => continue,
            Err(error) => News::Closed(error.to_string()),
        };
        let last = matches!(news, News::Closed(_));
        if told.send(news).is_err() || last {
            return;
        }
    }
}

fn of_four(publish: Publish) -> Message {
    Message {
        topic: publish.topic.clone(),
        payload: publish.payload.to_vec(),
        retained: publish.retain,
        user_properties: Vec::new(),
        source: Source::Four(publish),
    }
}

/// rumqttc hands an aliased message over without its topic, so the names are kept here.
fn of_five(publish: five::v5::Publish, aliases: &mut BTreeMap<u16, String>) -> Message {
    let properties = publish.properties.clone().unwrap_or_default();
    let mut topic = String::from_utf8_lossy(&publish.topic).into_owned();
    if let Some(alias) = properties.topic_alias {
        match topic.is_empty() {
            true => topic = aliases.get(&alias).cloned().unwrap_or_default(),
            false => drop(aliases.insert(alias, topic.clone())),
        }
    }
    Message {
        topic,
        payload: publish.payload.to_vec(),
        retained: publish.retain,
        user_properties: properties.user_properties,
        source: Source::Five(Box::new(publish)),
    }
}
