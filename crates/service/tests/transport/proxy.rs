//! A TCP proxy that can be cut, so that a test decides when a connection is lost.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Forwards to one address while it is up.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    up: watch::Sender<bool>,
    // Shared with the accepting task, which adds to it.
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
    acceptor: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (up, mut is_up) = watch::channel(true);
        let connections = Arc::new(Mutex::new(Vec::new()));
        let held = Arc::clone(&connections);
        let acceptor = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                if !*is_up.borrow_and_update() {
                    continue;
                }
                let connection = tokio::spawn(async move {
                    if let Ok(mut broker) = TcpStream::connect(to).await {
                        let _ = copy_bidirectional(&mut client, &mut broker).await;
                    }
                });
                held.lock().unwrap().push(connection);
            }
        });
        Self { address, up, connections, acceptor }
    }

    /// Ends every connection; new ones are taken again at once.
    pub(crate) fn cut(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }

    /// Ends every connection and lets none through.
    pub(crate) fn down(&self) {
        self.up.send_replace(false);
        self.cut();
    }

    pub(crate) fn up(&self) {
        self.up.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.cut();
    }
}
