//! Modules that are too large for a message: from an upload to the pieces at the broker.

use protocol::{
    Digest, Manifest, Topic,
    message::{ModuleWants, PropletCreate, TaskStart},
};
use serde_json::{Value, json};

use super::{
    http::{Said, call_with, form},
    world::{Peer, World},
};

/// What the broker is said to take.
const LIMIT: &str = "--payload-bytes-max=16384";

fn module() -> Vec<u8> {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    module.extend((0..300_000_u32).map(|n| n.to_le_bytes()[1]));
    module
}

async fn upload(world: &World, id: &str) -> Said {
    let (header, body) = form("file", &module());
    call_with(world.at, "PUT", &format!("/tasks/{id}/upload"), header, &body).await
}

/// A proplet that knows pieces, and has topics of its own.
async fn able(world: &World, name: &str) -> Peer {
    let proplet = name.parse().unwrap();
    let mut peer = Peer::new(&world.broker, name, &[Topic::DirectStart { proplet }]).await;
    let metadata = json!({"directed": true, "module_pieces": true});
    peer.say(&PropletCreate {
        proplet_id: name.parse().unwrap(),
        namespace: String::new(),
        metadata: serde_json::from_value(metadata).unwrap(),
        tasks: Some(vec![]),
    });
    world.until(&format!("/proplets/{name}"), |said| said.status == 200).await;
    peer
}

impl Peer {
    /// Fetches all pieces, each from its retained topic.
    async fn fetch(&mut self, blob: &Manifest) -> Vec<u8> {
        let mut whole = vec![];
        for index in 0..blob.count() {
            let topic = Topic::ModuleChunk { sha256: blob.sha256(), index };
            self.listen(topic.clone());
            let piece = loop {
                let envelope = self.hear().await;
                if envelope.topic == topic && !envelope.payload.is_empty() {
                    break envelope.payload;
                }
            };
            blob.check(index, &piece).expect("the right piece");
            whole.extend_from_slice(&piece);
        }
        whole
    }
}

#[tokio::test]
async fn an_uploaded_module_goes_in_pieces_to_any_number_and_across_a_restart() {
    let world = World::with(&[LIMIT]).await;
    let mut first = able(&world, "p-1").await;
    let id = world.task(json!({"name": "t", "proplet_id": "p-1"})).await;
    let said = upload(&world, &id).await;
    assert_eq!(said.status, 200, "{said:?}");
    assert_eq!(world.post(&format!("/tasks/{id}/start"), Value::Null).await.status, 200);
    let start: TaskStart = first.hear().await.open().unwrap();
    let blob = start.file_blob.expect("in pieces");
    assert!(start.file.is_none() && blob.chunk_bytes() < 16384, "{blob:?}");
    assert_eq!(first.fetch(&blob).await, module());

    // Another process, and a broker that has lost the pieces: whoever lacks them says so.
    let (_, dir) = world.stop().await;
    let broker = service::transport::memory::Broker::default();
    let world = World::start(broker, dir, &[LIMIT]).await;
    let mut second = able(&world, "p-2").await;
    let proplet_id = "p-2".parse().unwrap();
    second.say(&ModuleWants { proplet_id, sha256: blob.sha256() });
    assert_eq!(Digest::of(&second.fetch(&blob).await), blob.sha256());

    // With the task, its pieces leave the broker.
    assert_eq!(world.post(&format!("/tasks/{id}/stop"), Value::Null).await.status, 200);
    let deleted = super::http::call(world.at, "DELETE", &format!("/tasks/{id}"), b"").await;
    assert_eq!(deleted.status, 204, "{deleted:?}");
    let mut gone = std::collections::BTreeSet::new();
    while gone.len() < blob.count() as usize {
        let envelope = second.hear().await;
        if envelope.payload.is_empty() {
            gone.insert(envelope.topic);
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn a_module_that_fits_no_message_is_refused_for_who_knows_no_pieces() {
    let world = World::with(&[LIMIT]).await;
    let _peer = world.proplet("p-1").await;
    let id = world.task(json!({"name": "t", "proplet_id": "p-1"})).await;
    upload(&world, &id).await;
    let said = world.post(&format!("/tasks/{id}/start"), Value::Null).await;
    assert_eq!(said.status, 413, "{said:?}");
    let error = said.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains(&id) && error.contains("the broker takes 1"), "{error}");
    world.stop().await;
}
