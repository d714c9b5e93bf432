//! Packets made by hand over a plain socket, for what no decent client would send.

use crate::peer::{Failure, PATIENCE};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A socket to a broker that knows no protocol.
pub(crate) struct Raw(TcpStream);

impl Raw {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let opened = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await;
        match opened {
            Ok(Ok(stream)) => Ok(Self(stream)),
            Ok(Err(error)) => Err(format!("no connection to {address}: {error}")),
            Err(_) => Err(format!("no connection to {address} in time")),
        }
    }

    /// Opens, connects as this client (3.1.1, clean session) and waits for the CONNACK.
    pub(crate) async fn client(address: SocketAddr, id: &str) -> Result<Self, Failure> {
        let mut raw = Self::open(address).await?;
        raw.send(&connect(id)).await?;
        let ack = raw.read(4).await?;
        ensure!(ack == [0x20, 2, 0, 0], "CONNACK {ack:02x?} for {id}");
        Ok(raw)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match tokio::time::timeout(PATIENCE, self.0.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("could not send {} bytes: {error}", bytes.len())),
            Err(_) => Err(format!("could not send {} bytes in time", bytes.len())),
        }
    }

    /// Sends what the broker may refuse half-way, so a failure to send is no failure.
    pub(crate) async fn offer(&mut self, bytes: &[u8]) {
        let _refused = tokio::time::timeout(PATIENCE, self.0.write_all(bytes)).await;
    }

    pub(crate) async fn read(&mut self, count: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; count];
        match tokio::time::timeout(PATIENCE, self.0.read_exact(&mut bytes)).await {
            Ok(Ok(_)) => Ok(bytes),
            Ok(Err(error)) => Err(format!("{count} bytes did not come: {error}")),
            Err(_) => Err(format!("{count} bytes did not come in time")),
        }
    }

    /// Reads and throws away until the broker closes the connection.
    pub(crate) async fn closed(mut self) -> Result<(), Failure> {
        let mut rest = [0; 4096];
        loop {
            match tokio::time::timeout(PATIENCE, self.0.read(&mut rest)).await {
                Ok(Ok(0) | Err(_)) => return Ok(()),
                Ok(Ok(_)) => {}
                Err(_) => return Err("the broker kept the connection open".to_owned()),
            }
        }
    }
}

/// A 3.1.1 CONNECT with a clean session and a keep-alive of 60 s.
pub(crate) fn connect(id: &str) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04\x02\0\x3c".to_vec();
    string(&mut body, id.as_bytes());
    packet(0x10, &body)
}

/// A QoS 1 PUBLISH with packet id 1; the topic is bytes, for it may be none that is allowed.
pub(crate) fn publish(topic: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    string(&mut body, topic);
    body.extend([0, 1]);
    body.extend(payload);
    packet(0x32, &body)
}

/// A SUBSCRIBE with packet id 1.
pub(crate) fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    string(&mut body, filter.as_bytes());
    body.push(qos);
    packet(0x82, &body)
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut rest = body.len();
    loop {
        let low = (rest % 128) as u8;
        rest /= 128;
        bytes.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

fn string(body: &mut Vec<u8>, text: &[u8]) {
    let length = u16::try_from(text.len()).expect("a string of the tests is short");
    body.extend(length.to_be_bytes());
    body.extend(text);
}
