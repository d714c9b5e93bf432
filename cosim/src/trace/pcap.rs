//! MQTT as a packet capture that Wireshark reads: each message a PUBLISH in a TCP segment between
//! a node and the broker, with virtual time stamps.
//!
//! File format: libpcap, link type 101 (raw IP). Every node has an address in 10.0.0.0/8, the
//! broker is 10.255.255.1, port 1883. What is written are the messages, not the handshakes.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use protocol::{ChannelId, DomainId, Namespace, Topic};
use sim::{Direction, Packet, TraceEvent, TraceSink, Wants};

/// Where a world's platform lives: the services' own defaults.
const DOMAIN: &str = "demo";
const CHANNEL: &str = "fl";
const LINK_RAW_IP: u32 = 101;
const SEGMENT_LEN_MAX: usize = 60_000;
const BROKER: [u8; 4] = [10, 255, 255, 1];
const BROKER_PORT: u16 = 1883;
const NODE_PORT: u16 = 50_000;

/// Writes a capture. A write that fails is remembered, and told at the end.
#[derive(Debug)]
pub struct Pcap<W: Write> {
    out: W,
    flows: BTreeMap<String, Flow>,
    failed: Option<io::Error>,
}

/// One connection: its node's address, and how far each side has come.
#[derive(Clone, Copy, Debug)]
struct Flow {
    address: [u8; 4],
    up: u32,
    down: u32,
    packet_id: u16,
}

impl<W: Write> Pcap<W> {
    /// Writes to `out`, beginning with the file's header.
    pub fn new(mut out: W) -> Self {
        let mut header = vec![];
        header.extend(0xa1b2_c3d4_u32.to_le_bytes());
        header.extend(2_u16.to_le_bytes());
        header.extend(4_u16.to_le_bytes());
        header.extend([0; 8]);
        header.extend(262_144_u32.to_le_bytes());
        header.extend(LINK_RAW_IP.to_le_bytes());
        let failed = out.write_all(&header).err();
        Self { out, flows: BTreeMap::new(), failed }
    }

    /// Ends the capture.
    pub fn finish(mut self) -> io::Result<()> {
        match self.failed.take() {
            Some(why) => Err(why),
            None => self.out.flush(),
        }
    }

    fn packet(&mut self, time_us: u64, packet: &Packet) {
        let number = self.flows.len() as u32 + 1;
        let [_, b, c, d] = number.to_be_bytes();
        let fresh = Flow { address: [10, b, c, d], up: 1, down: 1, packet_id: 0 };
        let flow = self.flows.entry(packet.client.clone()).or_insert(fresh);
        flow.packet_id = flow.packet_id % u16::MAX + 1;
        let message = publish(packet, flow.packet_id);
        let mut frames = vec![];
        for piece in message.chunks(SEGMENT_LEN_MAX) {
            frames.push(segment(flow, packet.direction, piece));
        }
        for frame in frames {
            self.record(time_us, &frame);
        }
    }

    fn record(&mut self, time_us: u64, frame: &[u8]) {
        let mut record = vec![];
        record.extend(((time_us / 1_000_000) as u32).to_le_bytes());
        record.extend(((time_us % 1_000_000) as u32).to_le_bytes());
        record.extend((frame.len() as u32).to_le_bytes());
        record.extend((frame.len() as u32).to_le_bytes());
        record.extend_from_slice(frame);
        if self.failed.is_none() {
            self.failed = self.out.write_all(&record).err();
        }
    }
}

impl<W: Write> TraceSink for Pcap<W> {
    fn wants(&self) -> Wants {
        Wants::Events
    }

    fn event(&mut self, event: TraceEvent) {
        if let Some(packet) = &event.packet {
            self.packet(event.time_us, packet);
        }
    }
}

/// A topic as a broker would see it: a world has one platform, whose base is written `{B}`.
fn rendered(topic: &str) -> String {
    let (domain, channel) = (DOMAIN.parse::<DomainId>(), CHANNEL.parse::<ChannelId>());
    let namespace = domain.and_then(|domain| Namespace::new("", &domain, &channel?));
    match (topic.parse::<Topic>(), namespace) {
        (Ok(ours), Ok(namespace)) => namespace.render(&ours),
        (Err(_), _) | (_, Err(_)) => topic.to_owned(),
    }
}

/// A PUBLISH at QoS 1 (MQTT 3.1.1, section 3.3).
fn publish(packet: &Packet, id: u16) -> Vec<u8> {
    let flags = 0x32 | u8::from(packet.retain) | (u8::from(packet.duplicate) << 3);
    let topic = rendered(&packet.topic);
    let topic = topic.as_bytes();
    let mut rest = topic.len() + 4 + packet.payload.len();
    let mut out = vec![flags];
    loop {
        let byte = (rest % 128) as u8;
        rest /= 128;
        out.push(if rest > 0 { byte | 0x80 } else { byte });
        if rest == 0 {
            break;
        }
    }
    out.extend((topic.len() as u16).to_be_bytes());
    out.extend_from_slice(topic);
    out.extend(id.to_be_bytes());
    out.extend_from_slice(&packet.payload);
    out
}

/// An IPv4 packet (RFC 791) with one TCP segment (RFC 9293), acknowledging all of the other side.
fn segment(flow: &mut Flow, direction: Direction, data: &[u8]) -> Vec<u8> {
    let (from, to, ports, seq, ack) = match direction {
        Direction::ToBroker => {
            (flow.address, BROKER, (NODE_PORT, BROKER_PORT), &mut flow.up, flow.down)
        }
        Direction::FromBroker => {
            (BROKER, flow.address, (BROKER_PORT, NODE_PORT), &mut flow.down, flow.up)
        }
    };
    let mut tcp = vec![];
    tcp.extend(ports.0.to_be_bytes());
    tcp.extend(ports.1.to_be_bytes());
    tcp.extend(seq.to_be_bytes());
    tcp.extend(ack.to_be_bytes());
    // Five words of header; PSH and ACK; a full window; no checksum yet; nothing urgent.
    tcp.extend([0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    tcp.extend_from_slice(data);
    *seq = seq.wrapping_add(data.len() as u32);
    let mut pseudo = [from, to].concat();
    pseudo.extend([0, 6]);
    pseudo.extend((tcp.len() as u16).to_be_bytes());
    pseudo.extend_from_slice(&tcp);
    tcp[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    let mut ip = vec![0x45, 0];
    ip.extend((20 + tcp.len() as u16).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    ip.extend(from);
    ip.extend(to);
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend(tcp);
    ip
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default()));
    let mut sum: u32 = words.fold(0, |sum, word| (sum + word) % 0xffff_0000);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(len: usize) -> Packet {
        Packet {
            client: "proplet-1".into(),
            direction: Direction::ToBroker,
            topic: "a/b".into(),
            payload: vec![7; len].into(),
            retain: false,
            duplicate: false,
        }
    }

    #[test]
    fn a_message_is_a_publish_in_segments_that_follow_each_other() {
        let mut out = vec![];
        let mut pcap = Pcap::new(&mut out);
        pcap.packet(1_500_000, &packet(3));
        pcap.packet(2_000_000, &packet(70_000));
        pcap.finish().unwrap();
        let mut frames = vec![];
        let mut rest = &out[24..];
        while !rest.is_empty() {
            let len = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
            frames.push(rest[16..16 + len].to_vec());
            rest = &rest[16 + len..];
        }
        assert_eq!(frames.len(), 3);
        assert_eq!(&frames[0][40..], [0x32, 10, 0, 3, b'a', b'/', b'b', 0, 1, 7, 7, 7]);
        let seq = |frame: &[u8]| u32::from_be_bytes(frame[24..28].try_into().unwrap());
        assert_eq!((seq(&frames[0]), seq(&frames[1])), (1, 13));
        assert_eq!(seq(&frames[2]), 13 + SEGMENT_LEN_MAX as u32);
        for frame in &frames {
            assert_eq!(checksum(&frame[..20]), 0, "the header's checksum holds");
        }
    }

    #[test]
    fn topics_stand_as_a_broker_sees_them() {
        for topic in [Topic::TaskResults, Topic::DirectStart { proplet: "p-1".parse().unwrap() }] {
            let shown = rendered(&topic.to_string());
            let below = topic.to_string().replace("{B}", "");
            assert!(!shown.contains(['{', '}']) && shown.ends_with(&below), "{shown}");
        }
        assert_eq!(rendered(&Topic::RoundStart.to_string()), Topic::RoundStart.to_string());
        assert_eq!(rendered("somebody/else"), "somebody/else");
    }
}
