//! What is pulled is what was named, once, and for ever.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use registry::{Registry, Settings};

use crate::{
    proxy::{End, Proxy},
    server::{Server, cache, image, module, settings},
};

#[tokio::test]
async fn a_tag_moves_and_a_digest_does_not() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let client = server.client(dir.path());
    let (old, new) = (module(1, 1000), module(2, 1000));
    server.push(":1", &old).await;
    let pinned = client.resolve(&server.image(":1")).await.unwrap();
    server.push(":1", &new).await;
    let (_, bytes) = client.pull(&pinned, 1 << 20, &mut |_, _| {}).await.unwrap();
    assert_eq!(bytes, old);
    let (image, bytes) = client.pull(&server.image(":1"), 1 << 20, &mut |_, _| {}).await.unwrap();
    assert_eq!(bytes, new);
    assert_ne!(image.image, pinned);
}

#[tokio::test]
async fn what_was_pulled_needs_no_registry() {
    let mut server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let module = module(1, 300_000);
    let signature = "someone:something".to_owned();
    let client = server.client(dir.path());
    let push = Bytes::from(module.clone());
    client.push(&server.image(":1"), push, Some(signature.clone()), &mut |_, _| {}).await.unwrap();
    let (image, _) = client.pull(&server.image(":1"), 1 << 20, &mut |_, _| {}).await.unwrap();
    server.kill();
    // Another process on the same machine.
    let other = server.client(dir.path());
    let (again, bytes) = other.pull(&image.image, 1 << 20, &mut |_, _| {}).await.unwrap();
    assert_eq!((again.signature.as_deref(), bytes), (Some(signature.as_str()), module));
    // The tag could mean anything by now.
    let why = other.pull(&server.image(":1"), 1 << 20, &mut |_, _| {}).await.unwrap_err();
    assert_eq!(why.code(), "image_unreachable");
    assert!(why.to_string().contains("4 attempts"), "{why}");
}

#[tokio::test]
async fn many_that_want_the_same_pull_it_once() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let module = module(1, 3_000_000);
    let pinned = server.push(":1", &module).await.image;
    let proxy = Proxy::before(server.port, u64::MAX, End::Breaks);
    let pinned = image(proxy.port, ":1").pinned(pinned.digest().unwrap());
    let pulls: Vec<_> = (0..8)
        .map(|_| {
            let client = Registry::new(settings(proxy.port), Some(cache(dir.path())));
            let pinned = pinned.clone();
            tokio::spawn(async move { client.pull(&pinned, 1 << 30, &mut |_, _| {}).await })
        })
        .collect();
    for pull in pulls {
        let (_, bytes) = pull.await.unwrap().unwrap();
        assert!(bytes == module);
    }
    let passed = proxy.passed.load(Ordering::SeqCst);
    assert!(passed < 2 * 3_000_000, "{passed} bytes");
}

#[tokio::test]
async fn what_is_damaged_on_disk_is_pulled_again() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let client = server.client(dir.path());
    let module = module(1, 1000);
    let pinned = server.push(":1", &module).await;
    client.pull(&pinned.image, 1 << 20, &mut |_, _| {}).await.unwrap();
    let kept = dir.path().join(format!("modules/{}.wasm", pinned.module));
    std::fs::write(&kept, "damaged").unwrap();
    let (_, bytes) = client.pull(&pinned.image, 1 << 20, &mut |_, _| {}).await.unwrap();
    assert!(bytes == module && std::fs::read(&kept).unwrap() == module);
}

#[tokio::test]
async fn what_was_begun_of_something_else_is_begun_anew() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let client = server.client(dir.path());
    let module = module(1, 1000);
    let pushed = server.push(":1", &module).await;
    let unfinished = dir.path().join(format!("modules/{}.unfinished", pushed.module));
    std::fs::create_dir(dir.path().join("modules")).unwrap();
    for len in [1, 500, module.len()] {
        std::fs::write(&unfinished, vec![b'?'; len]).unwrap();
        let (_, bytes) = client.pull(&pushed.image, 1 << 20, &mut |_, _| {}).await.unwrap();
        assert!(bytes == module);
        std::fs::remove_file(dir.path().join(format!("modules/{}.wasm", pushed.module))).unwrap();
    }
    // What one module has left is not taken for the beginning of another.
    let to = dir.path().join("module.wasm");
    let other = to.with_added_extension("unfinished");
    std::fs::write(&other, "?").unwrap();
    client.pull_to(&pushed.image, &to, 1 << 20, &mut |_, _| {}).await.unwrap();
    assert!(std::fs::read(&to).unwrap() == module && std::fs::read(&other).unwrap() == b"?");
}

#[tokio::test]
async fn a_host_that_is_not_listed_is_spoken_to_over_tls_alone() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    server.push(":1", &module(1, 1000)).await;
    let settings = Settings { plain_http: vec!["127.0.0.1".to_owned()], ..server.settings() };
    let client = Registry::new(settings, Some(cache(dir.path())));
    let why = client.resolve(&server.image(":1")).await.unwrap_err();
    assert_eq!(why.code(), "image_plain_http", "{why}");
    assert!(why.to_string().contains("registry_plain_http"), "{why}");
}
