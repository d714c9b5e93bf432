//! Registries that lie, die, go silent, or have not got it.

use std::{fs, net::TcpListener, sync::atomic::Ordering};

use protocol::Digest;
use registry::{Registry, RegistryError};
use tokio::time::Instant;

use crate::{
    proxy::{End, Proxy},
    server::{Server, cache, image, module, settings},
};

/// What a pull is allowed to take, and how long it may be.
const BYTES_MAX: u64 = 1 << 30;

#[tokio::test]
async fn what_is_not_there_is_said() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let client = server.client(dir.path());
    server.push(":1", &module(1, 1000)).await;
    let nothing = server.image(":1").pinned(Digest::of(b"nothing"));
    for image in [server.image(":2"), nothing, image_of(&server, "nobody/nothing:1")] {
        let why = client.pull(&image, BYTES_MAX, &mut |_, _| {}).await.unwrap_err();
        assert!(matches!(why, RegistryError::NotFound { .. }), "{why}");
        assert!(why.to_string().contains(&image.to_string()), "{why}");
    }
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_given_up_soon() {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let client = Registry::new(settings(port), Some(cache(dir.path())));
    let why = client.resolve(&image(port, ":1")).await.unwrap_err();
    assert_eq!(why.code(), "image_unreachable", "{why}");
    let nowhere = "oci://registry.invalid/a:1".parse().unwrap();
    let why = client.resolve(&nowhere).await.unwrap_err();
    assert_eq!(why.code(), "image_unreachable", "{why}");
    assert!(why.to_string().contains("registry.invalid"), "{why}");
}

#[tokio::test]
async fn other_bytes_than_promised_are_not_taken() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let client = server.client(dir.path());
    let module = module(1, 100_000);
    let pushed = server.push(":1", &module).await;
    let blob = server.blob(pushed.module);
    let mut changed = module.clone();
    changed[50_000] ^= 1;
    fs::write(&blob, &changed).unwrap();
    let why = client.pull(&pushed.image, BYTES_MAX, &mut |_, _| {}).await.unwrap_err();
    assert_eq!(why.code(), "image_digest", "{why}");
    assert!(why.to_string().contains(&Digest::of(&changed).to_string()), "{why}");
    // Shorter, and longer, than the manifest says.
    fs::write(&blob, &module[..50_000]).unwrap();
    let why = client.pull(&pushed.image, BYTES_MAX, &mut |_, _| {}).await.unwrap_err();
    // It refuses to send what comes behind the end, or breaks off.
    let codes = ["image_broken", "image_refused", "image_trouble"];
    assert!(codes.contains(&why.code()), "{why}");
    fs::write(&blob, [&module[..], b"more"].concat()).unwrap();
    let why = client.pull(&pushed.image, BYTES_MAX, &mut |_, _| {}).await.unwrap_err();
    assert_eq!(why.code(), "image_too_large", "{why}");
    // When it is mended, all is well.
    fs::write(&blob, &module).unwrap();
    let (_, bytes) = client.pull(&pushed.image, BYTES_MAX, &mut |_, _| {}).await.unwrap();
    assert!(bytes == module);
}

#[tokio::test]
async fn what_is_too_large_is_not_asked_for() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let pushed = server.push(":1", &module(1, 1000)).await;
    let proxy = Proxy::before(server.port, u64::MAX, End::Breaks);
    let client = Registry::new(settings(proxy.port), Some(cache(dir.path())));
    let pinned = image(proxy.port, ":1").pinned(pushed.image.digest().unwrap());
    let why = client.pull(&pinned, 1007, &mut |_, _| {}).await.unwrap_err();
    assert!(why.to_string().contains("1008 bytes, at most 1007"), "{why}");
    client.pull(&pinned, 1008, &mut |_, _| {}).await.unwrap();
}

#[tokio::test]
async fn a_pull_that_breaks_goes_on_where_it_was() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let module = module(1, 3_000_000);
    let pushed = server.push(":1", &module).await;
    // The module takes three connections.
    let proxy = Proxy::before(server.port, 1_200_000, End::Breaks);
    let client = Registry::new(settings(proxy.port), Some(cache(dir.path())));
    let pinned = image(proxy.port, ":1").pinned(pushed.image.digest().unwrap());
    let mut seen = vec![];
    let pull = client.pull(&pinned, BYTES_MAX, &mut |had, _| seen.push(had)).await;
    assert!(pull.unwrap().1 == module);
    assert!(seen.is_sorted(), "it went back");
    let passed = proxy.passed.load(Ordering::SeqCst);
    assert!(passed < 3_300_000, "{passed} bytes for 3,000,000");
}

#[tokio::test]
async fn a_registry_that_dies_among_the_bytes_is_given_up_and_taken_up_again() {
    let mut server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let module = module(1, 3_000_000);
    let pushed = server.push(":1", &module).await;
    let dying = Proxy::before(server.port, 400_000, End::Breaks);
    let pinned = image(dying.port, ":1").pinned(pushed.image.digest().unwrap());
    let client = Registry::new(settings(dying.port), Some(cache(dir.path())));
    let why = client.pull(&pinned, BYTES_MAX, &mut |_, _| {}).await.unwrap_err();
    assert_eq!(why.code(), "image_broken", "{why}");
    assert!(why.to_string().contains("of 3000008 bytes"), "{why}");
    server.kill();
    let why = client.pull(&pinned, BYTES_MAX, &mut |_, _| {}).await.unwrap_err();
    assert!(["image_unreachable", "image_broken"].contains(&why.code()), "{why}");
    server.start_again();
    let before = dying.passed.load(Ordering::SeqCst);
    for _ in 0..3 {
        // What came before the end is not asked for again, also by the next task.
        if client.pull(&pinned, BYTES_MAX, &mut |_, _| {}).await.is_ok_and(|it| it.1 == module) {
            let passed = dying.passed.load(Ordering::SeqCst) - before;
            assert!(passed < 2_000_000, "{passed} bytes");
            return;
        }
    }
    panic!("it was not brought to its end");
}

#[tokio::test]
async fn a_registry_that_goes_silent_does_not_hold_a_task_for_ever() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let pushed = server.push(":1", &module(1, 3_000_000)).await;
    let silent = Proxy::before(server.port, 100_000, End::GoesSilent);
    let pinned = image(silent.port, ":1").pinned(pushed.image.digest().unwrap());
    let client = Registry::new(settings(silent.port), Some(cache(dir.path())));
    let since = Instant::now();
    let why = client.pull(&pinned, BYTES_MAX, &mut |_, _| {}).await.unwrap_err();
    assert_eq!(why.code(), "image_stalled", "{why}");
    assert!(why.to_string().contains("no byte came for 1 s"), "{why}");
    assert!(since.elapsed().as_secs() < 25, "{:?}", since.elapsed());
    assert!(silent.opened.load(Ordering::SeqCst) >= 4);
}

fn image_of(server: &Server, name: &str) -> protocol::ImageRef {
    format!("oci://{}/{name}", server.host()).parse().unwrap()
}
