//! MQTT 3.1.1 and 5 on one port: the version is read off each connection's CONNECT.

use bytes::BytesMut;
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{Error, Packet, Protocol};

/// The protocol of one connection, unknown until its CONNECT.
#[derive(Clone)]
pub(super) struct Either {
    spoken: Option<Spoken>,
}

#[derive(Clone)]
enum Spoken {
    Four(V4),
    Five(V5),
}

impl Either {
    pub(super) fn new() -> Self {
        Self { spoken: None }
    }
}

impl Protocol for Either {
    fn read_mut(&mut self, stream: &mut BytesMut, size_max: usize) -> Result<Packet, Error> {
        let spoken = match &mut self.spoken {
            Some(spoken) => spoken,
            unknown @ None => unknown.insert(match level(stream)? {
                5 => Spoken::Five(V5),
                // The parser of 3.1.1 refuses every other level.
                _ => Spoken::Four(V4),
            }),
        };
        match spoken {
            Spoken::Four(four) => four.read_mut(stream, size_max),
            Spoken::Five(five) => five.read_mut(stream, size_max),
        }
    }

    fn write(&self, packet: Packet, buffer: &mut BytesMut) -> Result<usize, Error> {
        match &self.spoken {
            Some(Spoken::Five(five)) => five.write(packet, buffer),
            Some(Spoken::Four(four)) => four.write(without_properties(packet), buffer),
            None => Err(Error::InvalidProtocol),
        }
    }
}

/// The protocol level of a CONNECT of which enough has arrived: first byte, remaining length (1 to
/// 4 bytes), the name with its length before it, and then the level.
fn level(stream: &[u8]) -> Result<u8, Error> {
    let Some((first, rest)) = stream.split_first() else {
        return Err(Error::InsufficientBytes(1));
    };
    if first >> 4 != 1 {
        return Err(Error::IncorrectPacketFormat);
    }
    let length_bytes = rest.iter().take(4).take_while(|byte| **byte & 0x80 != 0).count() + 1;
    if length_bytes > 4 {
        return Err(Error::MalformedRemainingLength);
    }
    let at = length_bytes + b"\0\x04MQTT".len();
    rest.get(at).copied().ok_or_else(|| Error::InsufficientBytes(at + 1 - rest.len()))
}

/// The packet as 3.1.1 can say it: its writer panics on properties.
fn without_properties(packet: Packet) -> Packet {
    match packet {
        Packet::Publish(publish, _) => Packet::Publish(publish, None),
        Packet::PubAck(ack, _) => Packet::PubAck(ack, None),
        Packet::SubAck(ack, _) => Packet::SubAck(ack, None),
        Packet::PubRec(rec, _) => Packet::PubRec(rec, None),
        Packet::PubRel(rel, _) => Packet::PubRel(rel, None),
        Packet::PubComp(comp, _) => Packet::PubComp(comp, None),
        Packet::UnsubAck(ack, _) => Packet::UnsubAck(ack, None),
        Packet::Disconnect(disconnect, _) => Packet::Disconnect(disconnect, None),
        as_it_is @ (Packet::Connect(..)
        | Packet::ConnAck(..)
        | Packet::PingReq(_)
        | Packet::PingResp(_)
        | Packet::Subscribe(..)
        | Packet::Unsubscribe(..)) => as_it_is,
    }
}
