//! What is pushed is there, and is the same for whoever reads it.

use std::fs;

use bytes::Bytes;
use protocol::Digest;
use registry::{Registry, RegistryError, Settings};
use serde_json::Value;

use crate::server::{NAME, PASSWORD, Server, module};

#[tokio::test]
async fn the_same_module_is_the_same_image_and_goes_up_once() {
    let server = Server::open();
    let client = Registry::new(server.settings(), None);
    // As large as what Python makes.
    let module = Bytes::from(module(1, 18 << 20));
    let mut seen = vec![];
    let mut told = |sent, size| seen.push((sent, size));
    let first = client.push(&server.image(":1"), module.clone(), None, &mut told).await.unwrap();
    assert!(!first.was_there);
    let size = module.len() as u64;
    assert_eq!(seen.last(), Some(&(size, size)));
    assert!(seen.is_sorted(), "{seen:?}");
    let again = client.push(&server.image(":2"), module.clone(), None, &mut |_, _| {}).await;
    let again = again.unwrap();
    assert!(again.was_there);
    assert_eq!(again.image, first.image);
    assert_eq!(fs::read(server.blob(Digest::of(&module))).unwrap(), module);
    for tag in [":1", ":2"] {
        assert_eq!(client.resolve(&server.image(tag)).await.unwrap(), first.image);
    }
}

#[tokio::test]
async fn other_tools_find_what_they_look_for() {
    let server = Server::open();
    let component = b"\0asm\x0d\0\x01\0 and so on";
    for (module, os) in [(module(1, 10), "wasip1"), (component.to_vec(), "wasip2")] {
        let pushed = server.push(":1", &module).await;
        let manifest = fs::read(server.blob(pushed.image.digest().unwrap())).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest["schemaVersion"], 2);
        assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
        assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
        let digest = format!("sha256:{}", Digest::of(&module));
        assert_eq!(manifest["layers"][0]["digest"], digest);
        assert_eq!(manifest["layers"][0]["size"], module.len());
        let config = manifest["config"]["digest"].as_str().unwrap();
        let config = config.strip_prefix("sha256:").unwrap().parse().unwrap();
        let config: Value =
            serde_json::from_slice(&fs::read(server.blob(config)).unwrap()).unwrap();
        assert_eq!(config["os"], os);
        assert_eq!(config["layerDigests"][0], digest);
    }
}

#[tokio::test]
async fn a_private_registry_takes_nothing_from_strangers() {
    let server = Server::private();
    let dir = tempfile::tempdir().unwrap();
    let stranger = Registry::new(server.settings(), None);
    let module = Bytes::from(module(1, 1000));
    let push = stranger.push(&server.image(":1"), module.clone(), None, &mut |_, _| {}).await;
    let why = push.unwrap_err();
    assert!(matches!(why, RegistryError::Unauthorized { .. }), "{why}");

    let file = dir.path().join("config.json");
    let auth = |password: &str| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let auth = STANDARD.encode(format!("{NAME}:{password}"));
        fs::write(&file, format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, server.host()))
            .unwrap();
        Registry::new(Settings { auth_file: Some(file.clone()), ..server.settings() }, None)
    };
    let push = auth("wrong").push(&server.image(":1"), module.clone(), None, &mut |_, _| {}).await;
    let why = push.unwrap_err().to_string();
    assert!(why.contains("401") && why.contains("config.json") && !why.contains("wrong"), "{why}");
    let known = auth(PASSWORD);
    known.push(&server.image(":1"), module.clone(), None, &mut |_, _| {}).await.unwrap();
    let why = stranger.resolve(&server.image(":1")).await.unwrap_err();
    assert!(matches!(why, RegistryError::Unauthorized { .. }), "{why}");
    let to = dir.path().join("pulled");
    known.pull_to(&server.image(":1"), &to, 1 << 20, &mut |_, _| {}).await.unwrap();
    assert_eq!(fs::read(to).unwrap(), module);
}
