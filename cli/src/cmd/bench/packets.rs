//! Where MQTT packets begin and end in a stream of bytes, and what each one is.

use protocol::Namespace;

/// Type, flags and at most four bytes of length.
const HEADER_BYTES_MAX: usize = 5;
const PUBLISH: u8 = 3;
const NAMES: [&str; 16] = [
    "reserved",
    "CONNECT",
    "CONNACK",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "SUBACK",
    "UNSUBSCRIBE",
    "UNSUBACK",
    "PINGREQ",
    "PINGRESP",
    "DISCONNECT",
    "AUTH",
];

/// One direction of one connection; keeps no more than a packet's header and topic.
#[derive(Debug)]
pub(super) struct Packets {
    namespace: Namespace,
    begun: Vec<u8>,
    /// What is left of a packet that was told already.
    rest: u64,
}

impl Packets {
    pub(super) const fn new(namespace: Namespace) -> Self {
        Self { namespace, begun: vec![], rest: 0 }
    }

    /// Takes what came, and tells the kind and the length of each packet that begins in it.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut told: impl FnMut(String, u64)) {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let known = bytes.len().min(usize::try_from(self.rest).unwrap_or(usize::MAX));
                self.rest -= known as u64;
                bytes = &bytes[known..];
                continue;
            }
            self.begun.push(bytes[0]);
            bytes = &bytes[1..];
            if let Some((kind, len)) = self.begins() {
                self.rest = len - self.begun.len() as u64;
                self.begun.clear();
                told(kind, len);
            }
        }
    }

    /// The packet that begins, once enough of it is there to say what it is.
    fn begins(&self) -> Option<(String, u64)> {
        let (first, after) = self.begun.split_first()?;
        let (rest, digits) = length(after)?;
        let len = 1 + digits as u64 + rest;
        let name = NAMES[usize::from(first >> 4)];
        if first >> 4 != PUBLISH {
            return Some((name.to_owned(), len));
        }
        let body = &after[digits..];
        let topic_len = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
        let topic = body.get(2..2 + topic_len)?;
        Some((format!("{name} {}", self.kind(topic)), len))
    }

    /// The topic without what varies in it.
    fn kind(&self, topic: &[u8]) -> String {
        let parsed = str::from_utf8(topic).ok().and_then(|text| self.namespace.parse(text).ok());
        let Some(topic) = parsed else { return "of others".to_owned() };
        let shown = format!("{topic:?}");
        shown.split([' ', '{']).next().unwrap_or_default().to_owned()
    }
}

/// The number in the first bytes, seven bits a byte, low ones first; and how many bytes it takes.
fn length(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0;
    for (index, byte) in bytes.iter().take(HEADER_BYTES_MAX - 1).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((number, index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use protocol::Topic;

    use super::*;

    #[test]
    fn packets_are_told_apart_however_they_are_cut() {
        let domain = "demo".parse().unwrap();
        let namespace = Namespace::new("", &domain, &"fl".parse().unwrap()).unwrap();
        let topic = namespace.render(&Topic::PropletAlive);
        let body_len = 2 + topic.len() + 2 + 300;
        let mut stream = vec![0xc0, 0, 0x32];
        stream.extend([(body_len % 128) as u8 | 0x80, (body_len / 128) as u8]);
        stream.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
        stream.extend(topic.bytes());
        stream.extend([0, 1]);
        stream.extend([b'x'; 300]);
        stream.extend([0x40, 2, 0, 1]);
        for size in [1, 2, 7, 100, stream.len()] {
            let mut packets = Packets::new(namespace.clone());
            let mut told = vec![];
            for part in stream.chunks(size) {
                packets.feed(part, |kind, len| told.push((kind, len)));
            }
            let publish = 3 + body_len as u64;
            let expected = [("PINGREQ", 2), ("PUBLISH PropletAlive", publish), ("PUBACK", 4)]
                .map(|(kind, len)| (kind.to_owned(), len));
            assert_eq!(told, expected, "in parts of {size}");
        }
    }
}
