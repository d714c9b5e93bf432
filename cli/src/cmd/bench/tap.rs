//! A pipe between a service and the broker that counts every MQTT byte in it.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use protocol::Namespace;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_util::task::AbortOnDropHandle;

use super::packets::Packets;

const BUFFER_BYTES: usize = 64 << 10;

/// Bytes by direction and kind of packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) up: BTreeMap<String, u64>,
    pub(super) down: BTreeMap<String, u64>,
}

/// Which way bytes go, seen from the service.
#[derive(Clone, Copy, Debug)]
enum Way {
    Up,
    Down,
}

/// The pipe; it is cut when this is dropped.
#[derive(Debug)]
pub(super) struct Tap {
    /// Where the service finds it.
    pub(super) address: SocketAddr,
    // Both directions of every connection count here; held for one addition.
    tally: Arc<Mutex<Tally>>,
    _serving: AbortOnDropHandle<()>,
}

impl Tap {
    /// Listens on a port of its own and passes on to the broker.
    pub(super) async fn open(broker: SocketAddr, namespace: Namespace) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let tally = Arc::new(Mutex::new(Tally::default()));
        let counted = Arc::clone(&tally);
        let serving = tokio::spawn(async move {
            let mut pipes = tokio::task::JoinSet::new();
            while let Ok((service, _)) = listener.accept().await {
                pipes.spawn(pipe(service, broker, namespace.clone(), Arc::clone(&counted)));
            }
        });
        Ok(Self { address, tally, _serving: AbortOnDropHandle::new(serving) })
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Tally {
    /// What was added since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let less = |now: &BTreeMap<String, u64>, then: &BTreeMap<String, u64>| {
            let left = |(kind, bytes): (&String, &u64)| {
                let added = bytes - then.get(kind).copied().unwrap_or_default();
                (added > 0).then(|| (kind.clone(), added))
            };
            now.iter().filter_map(left).collect()
        };
        Self { up: less(&self.up, &before.up), down: less(&self.down, &before.down) }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (sum, more) in [(&mut self.up, &other.up), (&mut self.down, &other.down)] {
            for (kind, bytes) in more {
                *sum.entry(kind.clone()).or_default() += bytes;
            }
        }
    }

    fn count(&mut self, way: Way, kind: String, bytes: u64) {
        let sums = match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        };
        *sums.entry(kind).or_default() += bytes;
    }
}

/// Ends with whichever direction ends first, as a connection does.
async fn pipe(
    service: TcpStream,
    broker: SocketAddr,
    namespace: Namespace,
    tally: Arc<Mutex<Tally>>,
) -> io::Result<()> {
    let broker = TcpStream::connect(broker).await?;
    service.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (from_service, to_service) = service.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let packets = || Packets::new(namespace.clone());
    tokio::select! {
        end = pass(from_service, to_broker, Way::Up, (packets(), &tally)) => end,
        end = pass(from_broker, to_service, Way::Down, (packets(), &tally)) => end,
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Way,
    (mut packets, tally): (Packets, &Mutex<Tally>),
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        packets.feed(&buffer[..read], |kind, bytes| {
            tally.lock().unwrap_or_else(PoisonError::into_inner).count(way, kind, bytes);
        });
        to.write_all(&buffer[..read]).await?;
    }
}
