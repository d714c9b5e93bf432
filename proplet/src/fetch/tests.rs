//! Stories of fetching, against a real server on the loopback.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::*;

const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// A server that answers by path, and counts.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let mut request = BufReader::new(stream.try_clone().unwrap()).lines();
                let first = request.next().unwrap().unwrap();
                let path = first.split(' ').nth(1).unwrap();
                let path = path.split('?').next().unwrap();
                while request.next().is_some_and(|line| line.is_ok_and(|it| !it.is_empty())) {}
                // A client that has seen enough hangs up.
                let _ = stream.write_all(&answer(path));
                if path == "/silent" {
                    // Held open until the client gives up.
                    let _ = request.next();
                }
            }
        });
        Self { address, asked }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn answer(path: &str) -> Vec<u8> {
    let with = |head: &str, body: &[u8]| [head.as_bytes(), b"\r\n\r\n", body].concat();
    match path {
        "/module" => with("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 8", MODULE),
        "/empty" => with("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0", b""),
        // Says nothing of its length.
        "/endless" => with("HTTP/1.1 200 OK\r\nconnection: close", &vec![0; 1 << 20]),
        "/torn" => with("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 80", MODULE),
        "/moved" => with(
            "HTTP/1.1 302 Found\r\nconnection: close\r\nlocation: /module\r\ncontent-length: 0",
            b"",
        ),
        "/round" => with(
            "HTTP/1.1 302 Found\r\nconnection: close\r\nlocation: /round\r\ncontent-length: 0",
            b"",
        ),
        "/silent" => Vec::new(),
        _ => with("HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0", b""),
    }
}

async fn get(text: &str, settings: &Settings) -> Result<Program, FetchError> {
    fetch(text.parse().unwrap(), settings).await.map(|fetched| fetched.program)
}

#[test]
fn addresses_are_told_apart() {
    let digest = Digest::of(MODULE);
    let http = |url: &str, pin| Source::Http { url: url.into(), pin };
    assert_eq!("http://h/a?b=c".parse(), Ok(http("http://h/a?b=c", None)));
    assert_eq!(
        format!("https://h/a#sha256={digest}").parse(),
        Ok(http("https://h/a", Some(digest)))
    );
    let file = |pin| Source::File { path: "/m/a.wasm".into(), pin };
    assert_eq!("/m/a.wasm".parse(), Ok(file(None)));
    assert_eq!(format!("file:///m/a.wasm#sha256={digest}").parse(), Ok(file(Some(digest))));
    let oci = Source::Oci { image: "oci://r/a:1".parse().unwrap() };
    assert_eq!("oci://r/a:1".parse(), Ok(oci));
    assert!(matches!("oci://r/A".parse::<Source>(), Err(SourceError::Image(_))));
}

#[test]
fn what_is_no_address_is_named() {
    for text in ["", "a.wasm", "../a", "ftp://h/a", "file://host/a", "HTTP:/x", "/a\0b"] {
        let error = text.parse::<Source>().unwrap_err();
        assert!(matches!(error, SourceError::Scheme(_)), "{text:?}: {error}");
    }
    let error = "https://h/a#sha256=12".parse::<Source>().unwrap_err();
    assert!(error.to_string().contains("\"12\""), "{error}");
    assert_eq!("/".repeat(5000).parse::<Source>(), Err(SourceError::TooLong(5000)));
}

#[test]
fn no_secret_of_an_address_is_shown() {
    assert_eq!(source::shown("https://user:pw@host/a/b?token=x#y"), "https://host/a/b");
    assert_eq!(source::shown("https://user:pw@host?token"), "https://host");
}

#[tokio::test]
async fn a_module_comes_with_the_task_or_over_http() {
    let server = Server::start();
    let settings = Settings::default();
    let inline = fetch(Source::Inline(MODULE.into()), &settings).await.unwrap().program;
    assert_eq!(inline.bytes(), MODULE);
    for path in ["/module", "/moved"] {
        let program = get(&server.url(path), &settings).await.unwrap();
        assert_eq!(program.digest(), inline.digest(), "{path}");
    }
}

#[tokio::test]
async fn what_cannot_be_had_is_named_with_its_address() {
    let server = Server::start();
    let settings =
        Settings { bytes_max: 100, timeout: Duration::from_millis(300), ..Settings::default() };
    for (path, code) in [
        ("/nothing?token=secret", "fetch_status"),
        ("/empty", "fetch_empty"),
        ("/endless", "fetch_too_large"),
        ("/torn", "fetch_http"),
        ("/round", "fetch_http"),
        ("/silent", "fetch_http"),
    ] {
        let error = get(&server.url(path), &settings).await.unwrap_err();
        assert_eq!(error.code(), code, "{path}: {error}");
        assert!(error.to_string().contains(&server.address.to_string()), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = get(&format!("http://{address}/a"), &Settings::default()).await.unwrap_err();
    assert_eq!(error.code(), "fetch_http");
}

#[tokio::test]
async fn the_size_limit_is_the_last_size_allowed() {
    let server = Server::start();
    let limited = |bytes_max| Settings { bytes_max, ..Settings::default() };
    get(&server.url("/module"), &limited(8)).await.unwrap();
    let error = get(&server.url("/module"), &limited(7)).await.unwrap_err();
    assert_eq!(error.code(), "fetch_too_large");
    let error = fetch(Source::Inline(MODULE.into()), &limited(7)).await.unwrap_err();
    assert_eq!(error.code(), "fetch_too_large");
}

#[tokio::test]
async fn a_pin_refuses_other_bytes_and_fetches_its_own_once() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let settings =
        Settings { cache: Some(Cache::new(dir.path().into(), 1 << 20)), ..Settings::default() };
    let wrong = format!("{}#sha256={}", server.url("/module"), Digest::of(b"other"));
    assert_eq!(get(&wrong, &settings).await.unwrap_err().code(), "fetch_digest");

    let pinned = format!("{}#sha256={}", server.url("/module"), Digest::of(MODULE));
    let before = server.asked.load(Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(get(&pinned, &settings).await.unwrap().bytes(), MODULE);
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), before + 1);

    let kept = dir.path().join(format!("{}.wasm", Digest::of(MODULE)));
    fs::write(&kept, "damaged").unwrap();
    assert_eq!(get(&pinned, &settings).await.unwrap().bytes(), MODULE);
    assert_eq!(fs::read(&kept).unwrap(), MODULE);
}

#[tokio::test]
async fn files_are_read_only_below_the_module_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (modules, secret) = (dir.path().join("modules"), dir.path().join("secret"));
    fs::create_dir(&modules).unwrap();
    fs::write(modules.join("a.wasm"), MODULE).unwrap();
    fs::write(&secret, "secret").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&secret, modules.join("link")).unwrap();
    let inside = format!("file://{}", modules.join("a.wasm").display());

    let error = get(&inside, &Settings::default()).await.unwrap_err();
    assert_eq!(error.code(), "fetch_files_off");

    let settings = Settings { module_dir: Some(modules.clone()), ..Settings::default() };
    assert_eq!(get(&inside, &settings).await.unwrap().bytes(), MODULE);
    let pinned = format!("{inside}#sha256={}", Digest::of(b"other"));
    assert_eq!(get(&pinned, &settings).await.unwrap_err().code(), "fetch_digest");
    for (path, code) in [
        (secret.clone(), "fetch_outside"),
        (dir.path().join("not-there"), "fetch_outside"),
        (modules.join("../secret"), "fetch_outside"),
        (modules.join("link"), "fetch_outside"),
        (modules.join("not-there"), "fetch_io"),
        (modules.clone(), "fetch_not_a_file"),
    ] {
        let error = get(&path.display().to_string(), &settings).await.unwrap_err();
        assert_eq!(error.code(), code, "{}: {error}", path.display());
    }
}

#[tokio::test]
async fn a_device_that_does_not_pull_says_so() {
    let error = get("oci://registry.example/fl-client:1", &Settings::default()).await.unwrap_err();
    assert_eq!(error.code(), "image_pull_off");
    assert!(error.to_string().contains("oci://registry.example/fl-client:1"), "{error}");
}
