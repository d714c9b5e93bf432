//! A bridge from WebSocket to TCP, so that any broker will do.

use std::{net::SocketAddr, sync::Arc};

use futures::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tokio_tungstenite::tungstenite::{
    Message,
    handshake::server::{ErrorResponse, Request, Response},
    http::HeaderValue,
};

const PROTOCOL: &str = "Sec-WebSocket-Protocol";

pub(crate) struct Bridge {
    pub(crate) address: SocketAddr,
    acceptor: JoinHandle<()>,
}

impl Bridge {
    pub(crate) async fn start(to: SocketAddr) -> Self {
        Self::start_with(to, None).await
    }

    /// With a configuration, WebSockets are encrypted.
    pub(crate) async fn start_with(to: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                match &tls {
                    None => drop(tokio::spawn(carry(client, to))),
                    Some(tls) => {
                        let acceptor = TlsAcceptor::from(Arc::clone(tls));
                        tokio::spawn(async move {
                            // A client that refuses our certificate is what a test may want.
                            if let Ok(client) = acceptor.accept(client).await {
                                carry(client, to).await;
                            }
                        });
                    }
                }
            }
        });
        Self { address, acceptor }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

#[expect(clippy::result_large_err, reason = "the callback's type is not ours")]
fn agree(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    assert_eq!(request.uri().path(), "/mqtt");
    assert_eq!(request.headers().get(PROTOCOL).unwrap(), "mqtt");
    response.headers_mut().insert(PROTOCOL, HeaderValue::from_static("mqtt"));
    Ok(response)
}

async fn carry<S: AsyncRead + AsyncWrite + Unpin>(client: S, to: SocketAddr) {
    let web = tokio_tungstenite::accept_hdr_async(client, agree).await.unwrap();
    let (mut web_out, mut web_in) = web.split();
    let (mut tcp_in, mut tcp_out) = TcpStream::connect(to).await.unwrap().into_split();
    let up = async {
        while let Some(Ok(message)) = web_in.next().await {
            tcp_out.write_all(&message.into_data()).await.unwrap();
        }
    };
    let down = async {
        let mut buffer = vec![0; 8192];
        while let Ok(len @ 1..) = tcp_in.read(&mut buffer).await {
            web_out.send(Message::binary(buffer[..len].to_vec())).await.unwrap();
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
