//! A way to a registry that is bad: it breaks, or goes silent, after so many bytes.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// What happens to a connection when the bytes are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Breaks,
    GoesSilent,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    /// Connections that have come.
    pub(crate) opened: Arc<AtomicUsize>,
    /// Bytes that have gone to clients, over all connections.
    pub(crate) passed: Arc<AtomicU64>,
}

impl Proxy {
    /// Each connection passes so many bytes to its client.
    pub(crate) fn before(server: u16, bytes_max: u64, end: End) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (opened, passed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let counters = (Arc::clone(&opened), Arc::clone(&passed));
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                counters.0.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let up = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || copy(up, u64::MAX, End::Breaks, &AtomicU64::new(0)));
                let passed = Arc::clone(&counters.1);
                thread::spawn(move || copy((server, client), bytes_max, end, &passed));
            }
        });
        Self { port, opened, passed }
    }
}

fn copy((mut from, mut to): (TcpStream, TcpStream), bytes_max: u64, end: End, passed: &AtomicU64) {
    let (mut left, mut block) = (bytes_max, vec![0; 16 << 10]);
    while let Ok(len) = from.read(&mut block) {
        let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
        if len == 0 || to.write_all(&block[..len]).is_err() {
            break;
        }
        passed.fetch_add(len as u64, Ordering::SeqCst);
        left -= len as u64;
    }
    if left == 0 && end == End::GoesSilent {
        thread::sleep(Duration::from_secs(30));
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
