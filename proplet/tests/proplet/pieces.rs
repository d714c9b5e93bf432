//! Stories of models and updates that are longer than a message, on a real proplet and a real disk.

use std::{fs, path::PathBuf, time::Duration};

use bytes::{Bytes, BytesMut};
use protocol::{
    DType, Digest, Envelope, Form, Manifest, ModelLine, ModelUri, ModelVersion, Tensor, Tensors,
    Topic,
    manifest::Format,
    message::{
        Model, ModelBlob, TaskStart, UpdateOffer, UpdateWants, Wants, is_blob_form,
        read_update_offer,
    },
    tensor::safetensors,
};
use serde_json::json;

use crate::platform::{Platform, copier, federated, me, round_id, update_topic};

/// What the broker is said to take.
const LIMIT: &str = "--payload-bytes-max=16384";
const CHUNK: u32 = 15 << 10;
/// Numbers of each of two tensors.
const WIDTH: usize = 25_000;

fn numbers(offset: f32) -> Vec<f32> {
    (0..WIDTH).map(|n| n as f32 + offset).collect()
}

fn tensors() -> Tensors {
    let tensor = |offset| Tensor::from_f32(vec![WIDTH], &numbers(offset)).expect("numbers");
    [("a".to_owned(), tensor(0.5)), ("b".to_owned(), tensor(0.25))].into_iter().collect()
}

/// A model that is an update, too, if it is copied; its tensors are not in the order of names.
fn model() -> Bytes {
    let (middle, end) = (4 * WIDTH, 8 * WIDTH);
    let header = json!({
        "b": {"dtype": "F32", "shape": [WIDTH], "data_offsets": [0, middle]},
        "a": {"dtype": "F32", "shape": [WIDTH], "data_offsets": [middle, end]},
        "__metadata__": {"num_samples": "7", "metrics": "{\"loss\":0.5}"},
    });
    let header = header.to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    for number in numbers(0.25).into_iter().chain(numbers(0.5)) {
        file.extend_from_slice(&number.to_le_bytes());
    }
    file.into()
}

fn manifest() -> Manifest {
    Manifest::of(&model(), CHUNK, Format::safetensors()).expect("a manifest")
}

fn copies(task: &str, round: &str) -> TaskStart {
    let mut start = federated(task, Some(copier()), round);
    start.cli_args = vec!["copy".to_owned()];
    start
}

impl Platform {
    async fn show_piece(&mut self, index: u32, payload: Bytes) {
        let topic = Topic::ModelChunk { uri: ModelUri::global(ModelVersion(0)), index };
        self.publish(Envelope { topic, payload }).await;
    }

    async fn show_pieces(&mut self, indexes: impl Iterator<Item = u32>) {
        for index in indexes {
            let from = manifest().offset(index) as usize;
            let payload = model().slice(from..from + manifest().len_of(index));
            self.show_piece(index, payload).await;
        }
    }

    async fn hide_pieces(&mut self) {
        for index in 0..manifest().count() {
            self.show_piece(index, Bytes::new()).await;
        }
    }

    async fn show_manifest(&mut self) {
        self.publish(
            ModelBlob { version: ModelVersion(0), blob: manifest() }.shown(&ModelLine::default()),
        )
        .await;
    }

    async fn offer(&mut self, round: &str) -> UpdateOffer {
        let said = self.hear_envelope(&update_topic(round)).await.payload;
        assert!(is_blob_form(&said));
        read_update_offer(&said, Some(&me())).expect("an offer")
    }

    async fn want(&mut self, round: &str, sha256: Digest, indexes: impl Iterator<Item = u32>) {
        let wants = Wants { sha256, indexes: indexes.collect() };
        self.say(&UpdateWants { round_id: round_id(round), proplet_id: me(), wants }).await;
    }

    async fn piece(&mut self, round: &str, index: u32) -> Bytes {
        let topic = Topic::UpdateChunk { round: round_id(round), proplet: me(), index };
        self.hear_envelope(&topic).await.payload
    }

    /// The whole update, as the coordinator would get it.
    async fn fetch(&mut self, round: &str, blob: &Manifest) -> Bytes {
        let mut whole = BytesMut::new();
        for from in (0..blob.count()).step_by(4) {
            let to = (from + 4).min(blob.count());
            self.want(round, blob.sha256(), from..to).await;
            for index in from..to {
                let piece = self.piece(round, index).await;
                blob.check(index, &piece).expect("the right piece");
                whole.extend_from_slice(&piece);
            }
        }
        assert_eq!(Digest::of(&whole), blob.sha256());
        whole.freeze()
    }

    fn blobs(&self) -> PathBuf {
        self.dir.path().join("state").join("blobs")
    }

    /// What lies in the directory of blobs.
    fn on_disk(&self) -> Vec<String> {
        let entries = fs::read_dir(self.blobs()).expect("a directory");
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = entries.map(|entry| name(entry.expect("an entry"))).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn a_long_model_comes_and_a_long_update_goes_in_pieces_across_a_kill() {
    let mut platform = Platform::new();
    platform.show_pieces(0..manifest().count()).await;
    platform.show_manifest().await;
    let (proplet, _) = platform.start(&[LIMIT]).await;
    platform.say(&copies("t-1", "r-1")).await;
    let results = platform.result_of("t-1").await;
    assert_eq!(results.error, None);
    let offer = platform.offer("r-1").await;
    let blob = offer.blob.clone();
    assert_eq!((offer.num_samples, offer.metrics["loss"]), (7, 0.5));
    assert_eq!(results.results["bytes"], json!(blob.bytes()));
    assert_eq!(results.results["chunks"], json!(blob.count()));
    assert_eq!(blob.chunk_bytes(), CHUNK);

    platform.want("r-1", blob.sha256(), [2, 4].into_iter()).await;
    blob.check(2, &platform.piece("r-1", 2).await).expect("the right piece");
    proplet.kill().await;
    let (proplet, _) = platform.start(&[LIMIT]).await;
    assert_eq!(platform.offer("r-1").await, offer, "it outlives the process");
    let file = platform.fetch("r-1", &blob).await;
    let expected = safetensors::write(&tensors(), &safetensors::Metadata::new());
    assert_eq!(file, expected, "in the order of names, nothing else in it");

    platform.accept("r-1").await;
    platform.hide_pieces().await;
    platform.say(&copies("t-2", "r-2")).await;
    assert_eq!(platform.result_of("t-2").await.error, None, "the model is on the disk");
    assert_eq!(platform.offer("r-2").await.blob, blob);
    platform.accept("r-2").await;
    platform.say(&copies("t-3", "r-3")).await;
    platform.result_of("t-3").await;
    let mut expected = vec![blob.sha256().to_string(), manifest().sha256().to_string()];
    expected.sort();
    assert_eq!(platform.on_disk(), expected, "one model, and one update without a verdict");
    proplet.stop().await;
    let scratch = fs::read_dir(platform.dir.path().join("state").join("scratch"));
    assert_eq!(scratch.expect("a directory").count(), 0, "nothing stays behind");
}

#[tokio::test]
async fn a_proplet_that_dies_in_the_middle_of_a_model_goes_on_where_it_was() {
    const FIRST: u32 = 7;
    let mut platform = Platform::new();
    platform.show_pieces(0..FIRST).await;
    platform.show_manifest().await;
    let (proplet, _) = platform.start(&[LIMIT]).await;
    platform.say(&copies("t-1", "r-1")).await;
    // All that is there has come when its last piece is on the disk.
    let here = u64::from(FIRST) * u64::from(CHUNK);
    loop {
        let lens = fs::read_dir(platform.blobs()).into_iter().flatten().flatten();
        let lens = lens.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len());
        if lens.max().unwrap_or_default() >= here {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    proplet.kill().await;

    // From now on, nobody has the pieces that came.
    platform.hide_pieces().await;
    platform.show_pieces(FIRST..manifest().count()).await;
    let (proplet, _) = platform.start(&[LIMIT]).await;
    platform.say(&copies("t-1", "r-1")).await;
    assert_eq!(platform.result_of("t-1").await.error, None);
    let offer = platform.offer("r-1").await;
    let file = platform.fetch("r-1", &offer.blob).await;
    assert_eq!(safetensors::read(&file).expect("a file").tensors, tensors());
    proplet.stop().await;
}

#[tokio::test]
async fn long_text_becomes_a_file_of_the_models_types() {
    const COUNT: usize = 5_000;
    let mut platform = Platform::new();
    let (proplet, _) = platform.start(&[LIMIT]).await;
    let w = Tensor::from_f32(vec![COUNT], &vec![0.0; COUNT]).expect("numbers");
    let tensors: Tensors = [("w".to_owned(), w)].into_iter().collect();
    let version = ModelVersion(0);
    let model = Model { version, tensors, form: Form::Safetensors };
    platform
        .publish(Envelope {
            topic: Topic::Model { uri: ModelUri::global(version) },
            payload: model.write(),
        })
        .await;
    let mut start = federated("t-1", Some(copier()), "r-1");
    start.cli_args = vec!["print".to_owned(), COUNT.to_string()];
    platform.say(&start).await;
    let results = platform.result_of("t-1").await;
    assert_eq!(results.error, None);
    let offer = platform.offer("r-1").await;
    let file = platform.fetch("r-1", &offer.blob).await;
    let tensors = safetensors::read(&file).expect("a file").tensors;
    let w = tensors.get("w").expect("w");
    assert_eq!((w.dtype(), w.len()), (DType::F32, COUNT));
    assert_eq!(w.to_f32()[4999], 4999.1_f32);

    // Of another shape than the model, it is no update.
    let mut start = federated("t-2", Some(copier()), "r-2");
    start.cli_args = vec!["print".to_owned(), (COUNT + 1).to_string()];
    platform.say(&start).await;
    let results = platform.result_of("t-2").await;
    assert_eq!(results.code.expect("a code").0, "not_an_update", "{:?}", results.error);
    proplet.stop().await;
}

#[tokio::test]
async fn a_long_file_that_is_no_update_fails_its_task_and_leaves_nothing() {
    let mut platform = Platform::new();
    let (proplet, _) = platform.start(&[LIMIT, "--update-bytes-max=100000"]).await;
    platform.show_pieces(0..manifest().count()).await;
    platform.show_manifest().await;
    platform.say(&copies("t-1", "r-1")).await;
    let results = platform.result_of("t-1").await;
    assert_eq!(results.code.expect("a code").0, "output_too_large");

    // A model of text is copied as it is, and that is no file of tensors.
    let payload = json!({"version": 1, "w": vec![0.0; 10_000]}).to_string();
    let topic = Topic::Model { uri: ModelUri::global(ModelVersion(1)) };
    platform.publish(Envelope { topic, payload: payload.into() }).await;
    let mut start = copies("t-2", "r-2");
    start.env.insert("MODEL_URI".to_owned(), ModelUri::global(ModelVersion(1)).to_string());
    platform.say(&start).await;
    let results = platform.result_of("t-2").await;
    assert_eq!(results.code.expect("a code").0, "not_an_update", "{:?}", results.error);
    assert_eq!(platform.on_disk(), [manifest().sha256().to_string()]);
    proplet.stop().await;
}
