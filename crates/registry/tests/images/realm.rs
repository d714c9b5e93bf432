//! Name and password go where their owner wants them to, and nowhere else.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use registry::{Registry, Settings};

use crate::server::{NAME, PASSWORD, cache, image, settings};

/// A server of one answer, and what it was asked.
struct Answering {
    port: u16,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Answering {
    fn with(answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(vec![]));
        let told = Arc::clone(&heard);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, mut request) = (client.unwrap(), vec![]);
                let mut block = [0; 4096];
                while !request.ends_with(b"\r\n\r\n") {
                    match client.read(&mut block) {
                        Ok(len) if len > 0 => request.extend_from_slice(&block[..len]),
                        Ok(_) | Err(_) => break,
                    }
                }
                let request = String::from_utf8(request).unwrap();
                let _ = client.write_all(answer(&request).as_bytes());
                told.lock().unwrap().push(request);
            }
        });
        Self { port, heard }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

/// A registry that sends everybody to another place for a token.
fn registry(realm: String) -> Answering {
    Answering::with(move |_| {
        format!(
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"{realm}\",service=\"s\"\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
    })
}

fn refusing() -> Answering {
    Answering::with(|_| {
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()
    })
}

fn known(dir: &Path, registry: &Answering, plain_http: &[&Answering]) -> Registry {
    let host = format!("127.0.0.1:{}", registry.port);
    let file = dir.join("auth.json");
    let entry = format!(r#"{{"username": "{NAME}", "password": "{PASSWORD}"}}"#);
    fs::write(&file, format!(r#"{{"auths": {{"{host}": {entry}}}}}"#)).unwrap();
    let plain_http = plain_http.iter().map(|it| format!("127.0.0.1:{}", it.port)).collect();
    let settings = Settings { auth_file: Some(file), plain_http, ..settings(registry.port) };
    Registry::new(settings, Some(cache(dir)))
}

#[tokio::test]
async fn a_password_is_not_shown_unencrypted_where_a_registry_happens_to_say() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = refusing();
    let registry = registry(format!("http://127.0.0.1:{}/token", elsewhere.port));
    let image = image(registry.port, ":1");

    let client = known(dir.path(), &registry, &[&registry]);
    let why = client.resolve(&image).await.unwrap_err();
    assert_eq!(why.code(), "image_credentials", "{why}");
    assert!(why.to_string().contains(&elsewhere.port.to_string()), "{why}");
    assert!(elsewhere.heard().is_empty());
    let heard = registry.heard();
    assert!(!heard.is_empty() && heard.iter().all(|it| !it.contains("uthorization")), "{heard:?}");

    // Its owner may want it to be.
    let client = known(dir.path(), &registry, &[&registry, &elsewhere]);
    let why = client.resolve(&image).await.unwrap_err();
    assert_eq!(why.code(), "image_unauthorized", "{why}");
    let heard = elsewhere.heard();
    assert!(heard[0].to_lowercase().contains("authorization: basic"), "{heard:?}");
}
