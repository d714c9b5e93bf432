//! A wire between services and a broker that keeps a note of every MQTT packet in it.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const BUFFER_BYTES: usize = 64 << 10;

/// Which way a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToBroker,
    ToService,
}

/// What is known of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packet {
    way: Way,
    kind: u8,
    /// All of it, its header included.
    bytes: u64,
    topic: Option<String>,
    /// The number that a message and its acknowledgement have in common.
    number: Option<u16>,
}

#[derive(Debug, Default)]
struct Notes {
    broker_port: Option<u16>,
    packets: Vec<Packet>,
}

/// The wire. It lasts as long as the process.
#[derive(Debug)]
pub struct Tap {
    port: u16,
    // Written by a thread for each direction of each connection; held for one note.
    notes: Arc<(Mutex<Notes>, Condvar)>,
}

/// A message that went over the wire: what it took, and what its acknowledgement took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub message_bytes: u64,
    pub ack_bytes: u64,
}

impl Default for Tap {
    fn default() -> Self {
        Self::open()
    }
}

impl Tap {
    /// Listens; who connects waits until [`Tap::lead_to`] has said where to.
    pub fn open() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let notes = Arc::new((Mutex::new(Notes::default()), Condvar::new()));
        let shared = Arc::clone(&notes);
        thread::spawn(move || {
            for service in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || join(&service, &shared));
            }
        });
        Self { port, notes }
    }

    /// Where services find it, as settings take it.
    pub fn address(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    /// Leads to the broker on this port.
    pub fn lead_to(&self, broker_port: u16) {
        lock(&self.notes.0).broker_port = Some(broker_port);
        self.notes.1.notify_all();
    }

    /// Every message that went this way on a topic, with its acknowledgement, if all of them were
    /// acknowledged.
    pub fn exchanges(&self, way: Way, topic: &str) -> Option<Vec<Exchange>> {
        let notes = lock(&self.notes.0);
        let packets = notes.packets.iter().enumerate();
        let said = packets.filter(|(_, it)| it.way == way && it.topic.as_deref() == Some(topic));
        said.map(|(place, message)| {
            let answers =
                |it: &&Packet| it.kind == PUBACK && it.way != way && it.number == message.number;
            let ack = notes.packets[place..].iter().find(answers)?;
            Some(Exchange { message_bytes: message.bytes, ack_bytes: ack.bytes })
        })
        .collect()
    }
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two directions, each with a thread; when one ends, so does the other.
fn join(service: &TcpStream, notes: &Arc<(Mutex<Notes>, Condvar)>) {
    let told = notes.1.wait_while(lock(&notes.0), |notes| notes.broker_port.is_none());
    let port = told.unwrap_or_else(PoisonError::into_inner).broker_port.expect("it was waited for");
    let Ok(broker) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) else {
        return;
    };
    thread::scope(|scope| {
        scope.spawn(|| pass(service, &broker, Way::ToBroker, &notes.0));
        pass(&broker, service, Way::ToService, &notes.0);
    });
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, way: Way, notes: &Mutex<Notes>) {
    let (mut begun, mut buffer) = (vec![], vec![0; BUFFER_BYTES]);
    let _ = to.set_nodelay(true);
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        begun.extend_from_slice(&buffer[..read]);
        while let Some(len) = packet_len(&begun) {
            let packet = packet(way, &begun[..len]);
            lock(notes).packets.push(packet);
            begun.drain(..len);
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// The length of the packet that begins here, once all of it is there: one byte, the length of the
/// rest in sevens of bits, low ones first, and the rest (MQTT 3.1.1, section 2.2).
fn packet_len(bytes: &[u8]) -> Option<usize> {
    let (rest, digits) = rest_len(bytes)?;
    let len = 1 + digits + rest;
    (bytes.len() >= len).then_some(len)
}

fn rest_len(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut rest = 0;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        rest |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((rest, index + 1));
        }
    }
    None
}

fn packet(way: Way, bytes: &[u8]) -> Packet {
    let kind = bytes[0] >> 4;
    let (_, digits) = rest_len(bytes).expect("the packet is whole");
    let body = &bytes[1 + digits..];
    let number = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
    let (topic, number) = match kind {
        PUBLISH => {
            let end = 2 + usize::from(number(0).unwrap_or_default());
            let topic = body.get(2..end).map(|it| String::from_utf8_lossy(it).into_owned());
            // Quality 0 has no number.
            (topic, if bytes[0] & 0x06 == 0 { None } else { number(end) })
        }
        PUBACK => (None, number(0)),
        _ => (None, None),
    };
    Packet { way, kind, bytes: bytes.len() as u64, topic, number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_told_apart() {
        let publish = [0x32, 7, 0, 2, b'a', b'/', 0, 9, b'x'];
        assert_eq!(packet_len(&publish[..8]), None);
        let stream = [&publish[..], &[0x40, 2, 0, 9]].concat();
        assert_eq!(packet_len(&stream), Some(9));
        let said = packet(Way::ToBroker, &publish);
        assert_eq!((said.topic.as_deref(), said.number, said.bytes), (Some("a/"), Some(9), 9));
        let ack = packet(Way::ToService, &stream[9..]);
        assert_eq!((ack.kind, ack.number, ack.bytes), (PUBACK, Some(9), 4));
        assert_eq!(packet(Way::ToBroker, &[0x30, 3, 0, 1, b'a']).number, None);
        let long = [&[0x32, 0x80, 0x01][..], &[0; 128]].concat();
        assert_eq!(packet_len(&long), Some(131));
    }
}
