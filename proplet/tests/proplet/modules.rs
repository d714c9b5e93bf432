//! Stories of modules that come in pieces, on a real proplet and a real disk.

use bytes::Bytes;
use protocol::{Envelope, Manifest, Topic, manifest::Format, message::TaskStart};
use serde_json::json;

use crate::platform::{Platform, task};

/// What the broker is said to take.
const LIMIT: &str = "--payload-bytes-max=16384";
const CHUNK: u32 = 15 << 10;

/// A guest that prints 42, and is long.
fn answering() -> Bytes {
    const TEXT: &str = r#"(module
        (import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\08\00\00\00\02\00\00\0042")
        (func (export "_start")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 20)))))"#;
    let mut module = wat::parse_str(TEXT).expect("it assembles");
    // A section of no meaning: 400,003 bytes, the name "x" and what it is filled with.
    module.extend([0, 0x83, 0xb5, 0x18, 1, b'x']);
    module.extend((0..400_001_u32).map(|n| n.to_le_bytes()[1]));
    module.into()
}

fn manifest(module: &[u8]) -> Manifest {
    Manifest::of(module, CHUNK, Format::wasm()).expect("a manifest")
}

fn in_pieces(id: &str, module: &[u8]) -> TaskStart {
    TaskStart { file: None, file_blob: Some(manifest(module)), ..task(id, None) }
}

impl Platform {
    async fn show_module(&mut self, module: &Bytes, indexes: impl Iterator<Item = u32>) {
        let blob = manifest(module);
        for index in indexes {
            let from = usize::try_from(blob.offset(index)).expect("it is in memory");
            let payload = module.slice(from..from + blob.len_of(index));
            self.show_module_piece(&blob, index, payload).await;
        }
    }

    async fn show_module_piece(&mut self, blob: &Manifest, index: u32, payload: Bytes) {
        let topic = Topic::ModuleChunk { sha256: blob.sha256(), index };
        self.publish(Envelope { topic, payload }).await;
    }
}

#[tokio::test]
async fn a_module_comes_in_pieces_once_and_is_there_after_a_kill() {
    let module = answering();
    let count = manifest(&module).count();
    assert!(count > 20, "{count} pieces");
    let mut platform = Platform::new();
    platform.show_module(&module, 0..count).await;
    let (proplet, create) = platform.start(&[LIMIT]).await;
    assert_eq!(create.metadata["module_pieces"], json!(true));
    platform.say(&in_pieces("t-1", &module)).await;
    let results = platform.result_of("t-1").await;
    assert_eq!((results.error, results.results), (None, json!(42)));
    // From now on, nobody has the pieces.
    for index in 0..count {
        platform.show_module_piece(&manifest(&module), index, Bytes::new()).await;
    }
    platform.say(&in_pieces("t-2", &module)).await;
    assert_eq!(platform.result_of("t-2").await.results, json!(42));
    proplet.kill().await;
    let (proplet, _) = platform.start(&[LIMIT]).await;
    platform.say(&in_pieces("t-3", &module)).await;
    assert_eq!(platform.result_of("t-3").await.results, json!(42));
    assert!(!platform.overheard(&Topic::ModuleWants), "nothing was lacked");
    proplet.stop().await;
}

#[tokio::test]
async fn a_proplet_asks_for_what_does_not_come_and_takes_nothing_else_for_it() {
    let module = answering();
    let blob = manifest(&module);
    let mut platform = Platform::new();
    // Damaged pieces, and those of another module.
    for index in 0..blob.count() {
        let payload = Bytes::from(vec![7; blob.len_of(index)]);
        platform.show_module_piece(&blob, index, payload).await;
    }
    let (proplet, _) = platform.start(&[LIMIT]).await;
    platform.say(&in_pieces("t-1", &module)).await;
    let wants: protocol::message::ModuleWants = platform.hear(&Topic::ModuleWants).await;
    assert_eq!(wants.sha256, blob.sha256());
    platform.show_module(&module, 0..blob.count()).await;
    assert_eq!(platform.result_of("t-1").await.results, json!(42));

    // Pieces of something that is no module are fetched, and refused when they are to run.
    let other = Bytes::from(vec![9; 100_000]);
    platform.show_module(&other, 0..manifest(&other).count()).await;
    platform.say(&in_pieces("t-2", &other)).await;
    let results = platform.result_of("t-2").await;
    assert!(results.error.is_some(), "{results:?}");
    // A manifest of more than is run is refused before anything is fetched.
    proplet.stop().await;
    let (proplet, _) = platform.start(&[LIMIT, "--module-bytes-max=50000"]).await;
    platform.say(&in_pieces("t-3", &other)).await;
    let results = platform.result_of("t-3").await;
    assert_eq!(results.code.expect("a code").0, "fetch_too_large");
    proplet.stop().await;
}
