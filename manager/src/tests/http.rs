//! As much of an HTTP client as it takes to be rude.

use std::{io, net::SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

/// What a server said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Said {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|why| panic!("{why}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    pub(super) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// One request on a connection of its own.
pub(super) async fn call(at: SocketAddr, method: &str, path: &str, body: &[u8]) -> Said {
    call_with(at, method, path, "", body).await
}

/// With headers, each ended by CR LF.
pub(super) async fn call_with(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> Said {
    let stream = TcpStream::connect(at).await.unwrap();
    call_on(stream, at, method, (path, headers), body).await
}

/// On a connection that is there.
pub(super) async fn call_on<S>(
    stream: S,
    at: SocketAddr,
    method: &str,
    (path, headers): (&str, &str),
    body: &[u8],
) -> Said
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let all = request(at, method, (path, headers), body);
    let (mut from, mut to) = tokio::io::split(stream);
    // A server that refuses a body may stop to read it.
    let writing = tokio::spawn(async move {
        let _ = to.write_all(&all).await;
        let _ = to.flush().await;
        to
    });
    let mut said = vec![];
    let _ = from.read_to_end(&mut said).await;
    writing.abort();
    parse(&said)
}

/// One that does not listen until its whole body is sent.
pub(super) async fn call_deaf(at: SocketAddr, path: &str, body: &[u8]) -> io::Result<Said> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(&request(at, "POST", (path, ""), body)).await?;
    let mut said = vec![];
    stream.read_to_end(&mut said).await?;
    Ok(parse(&said))
}

fn request(at: SocketAddr, method: &str, (path, headers): (&str, &str), body: &[u8]) -> Vec<u8> {
    let len = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Length: {len}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

pub(super) fn parse(said: &[u8]) -> Said {
    let end = said.windows(4).position(|it| it == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8(said[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = said[end + 4..].to_vec();
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    Said { status, head, body }
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = vec![];
    while let Some(at) = body.windows(2).position(|it| it == b"\r\n") {
        let len = usize::from_str_radix(std::str::from_utf8(&body[..at]).unwrap(), 16).unwrap();
        if len == 0 {
            break;
        }
        whole.extend_from_slice(&body[at + 2..at + 2 + len]);
        body = &body[at + 4 + len..];
    }
    whole
}

/// The body of a form with one file in it, and the header that goes with it.
pub(super) fn form(field: &str, file: &[u8]) -> (&'static str, Vec<u8>) {
    let mut body = format!(
        "--XYZ\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"a.wasm\"\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(file);
    body.extend_from_slice(b"\r\n--XYZ--\r\n");
    ("Content-Type: multipart/form-data; boundary=XYZ\r\n", body)
}
