//! Images that cosign has signed, with the owner's key or otherwise. The signatures are made by
//! `openssl`, of the form that cosign gives them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use access::ModuleSigners;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::future::join_all;
use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol},
};
use protocol::{Digest, ImageRef};
use registry::{Cosigned, Registry, RegistryError};
use serde_json::{Value, json};

use crate::server::{Server, module};

const LAYER_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A pair of keys of P-256, as `cosign generate-key-pair` makes one.
struct Key {
    private: PathBuf,
    public: PathBuf,
}

impl Key {
    fn make(dir: &Path, name: &str) -> Self {
        let path = |ending: &str| dir.join(format!("{name}.{ending}"));
        let (private, public) = (path("key"), path("pub"));
        openssl(&["ecparam -name prime256v1 -genkey -noout -out", &shown(&private)]);
        openssl(&["ec -pubout -in", &shown(&private), "-out", &shown(&public)]);
        Self { private, public }
    }

    fn sign(&self, payload: &[u8]) -> String {
        let [file, signature] = ["payload", "sig"].map(|it| self.private.with_extension(it));
        fs::write(&file, payload).unwrap();
        let [key, to] = [&self.private, &signature].map(|path| shown(path));
        openssl(&["dgst -sha256 -sign", &key, "-out", &to, &shown(&file)]);
        STANDARD.encode(fs::read(signature).unwrap())
    }

    fn signers(&self) -> ModuleSigners {
        ModuleSigners::load(&self.public).unwrap()
    }
}

/// What stands beside an image.
struct Beside<'a> {
    server: &'a Server,
    image: Digest,
    layers: Vec<Value>,
}

impl<'a> Beside<'a> {
    fn new(server: &'a Server, image: &ImageRef) -> Self {
        Self { server, image: image.digest().unwrap(), layers: vec![] }
    }

    async fn layer(&mut self, payload: &[u8], signature: &str) -> Digest {
        let digest = self.blob(payload).await;
        self.layers.push(json!({
            "mediaType": LAYER_TYPE,
            "digest": format!("sha256:{digest}"),
            "size": payload.len(),
            "annotations": {"dev.cosignproject.cosign/signature": signature},
        }));
        digest
    }

    /// Under the tag where cosign looks for it.
    async fn put(&self, padding: usize) {
        let config = b"{}";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": format!("sha256:{}", self.blob(config).await),
                "size": config.len(),
            },
            "layers": self.layers,
            "annotations": {"padding": "x".repeat(padding)},
        });
        let (bytes, kind) = (serde_json::to_vec(&manifest).unwrap(), MANIFEST_TYPE.parse());
        let put = client().push_manifest_raw(&self.reference(), bytes, kind.unwrap()).await;
        put.unwrap();
    }

    async fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let name = format!("sha256:{digest}");
        client().push_blob(&self.reference(), bytes.to_vec(), &name).await.unwrap();
        digest
    }

    fn reference(&self) -> Reference {
        let tag = format!("sha256-{}.sig", self.image);
        Reference::with_tag(self.server.host(), "team/fl-client".to_owned(), tag)
    }
}

fn client() -> Client {
    Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() })
}

fn payload(image: &ImageRef, more: &str) -> Vec<u8> {
    let digest = format!("sha256:{}", image.digest().unwrap());
    let text = json!({
        "critical": {
            "identity": {"docker-reference": "elsewhere.example/team/fl-client"},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": {"note": more},
    });
    text.to_string().into_bytes()
}

/// As a device asks, whose owner trusts these.
async fn check(
    client: &Registry,
    image: &ImageRef,
    signers: &ModuleSigners,
) -> Result<(), RegistryError> {
    let judge = |image: Digest, signed: &Cosigned| {
        let checked = signers.check_cosigned(image, &signed.payload, &signed.signature);
        checked.map_err(|why| why.to_string())
    };
    client.cosigned(image, &judge).await
}

fn refused(checked: Result<(), RegistryError>, word: &str) {
    let why = checked.unwrap_err();
    assert_eq!(why.code(), "module_unsigned", "{why}");
    assert!(why.to_string().contains(word), "{why}");
}

#[tokio::test]
async fn a_signature_of_the_owner_s_key_holds_for_its_image_alone() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let client = server.client(dir.path());
    let (ann, eve) = (Key::make(dir.path(), "ann"), Key::make(dir.path(), "eve"));
    let image = server.push(":1", &module(1, 1000)).await.image;
    let other = server.push(":2", &module(2, 1000)).await.image;
    refused(check(&client, &image, &ann.signers()).await, "there is no sha256-");

    // One good signature among others is enough.
    let mut beside = Beside::new(&server, &image);
    for (key, note) in [(&eve, "hers"), (&ann, "ours")] {
        let payload = payload(&image, note);
        beside.layer(&payload, &key.sign(&payload)).await;
    }
    beside.put(0).await;
    check(&client, &image, &ann.signers()).await.unwrap();
    check(&client, &server.image(":1"), &ann.signers()).await.unwrap();
    let nobody = Key::make(dir.path(), "nobody").signers();
    refused(check(&client, &image, &nobody).await, "of 2 signatures none holds");

    // A good signature, moved to another image.
    let mut moved = Beside::new(&server, &other);
    let payload = payload(&image, "ours");
    moved.layer(&payload, &ann.sign(&payload)).await;
    moved.put(0).await;
    refused(check(&client, &other, &ann.signers()).await, "another image");
}

#[tokio::test]
async fn what_was_changed_or_is_too_much_is_refused() {
    let server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let client = server.client(dir.path());
    let ann = Key::make(dir.path(), "ann");
    let image = server.push(":1", &module(1, 1000)).await.image;
    let (payload, changed) = (payload(&image, "ours"), payload(&image, "hers"));
    let signature = ann.sign(&payload);

    // Of other bytes, of none, and nothing that is one.
    let mut beside = Beside::new(&server, &image);
    beside.layer(&changed, &signature).await;
    for nothing in ["", "?", &"A".repeat(2000)] {
        beside.layer(&payload, nothing).await;
    }
    beside.put(0).await;
    refused(check(&client, &image, &ann.signers()).await, "of 4 signatures none holds");

    // More signed bytes than are read.
    let mut large = Beside::new(&server, &image);
    let long = [&payload[..], &vec![b' '; 20_000]].concat();
    large.layer(&long, &ann.sign(&long)).await;
    large.put(0).await;
    refused(check(&client, &image, &ann.signers()).await, "at most 16384");

    let mut beside = Beside::new(&server, &image);
    beside.put(0).await;
    refused(check(&client, &image, &ann.signers()).await, "holds no signature");

    let digest = beside.layer(&payload, &signature).await;
    beside.put(2 << 20).await;
    refused(check(&client, &image, &ann.signers()).await, "at most 1048576");

    // The registry sends something else than it says.
    beside.put(0).await;
    fs::write(server.blob(digest), &changed).unwrap();
    refused(check(&client, &image, &ann.signers()).await, "SHA-256");
    fs::write(server.blob(digest), &payload).unwrap();
    check(&client, &image, &ann.signers()).await.unwrap();
}

#[tokio::test]
async fn what_held_once_needs_no_registry_and_is_looked_at_again() {
    let mut server = Server::open();
    let dir = tempfile::tempdir().unwrap();
    let ann = Key::make(dir.path(), "ann");
    let image = server.push(":1", &module(1, 1000)).await.image;
    let payload = payload(&image, "ours");
    let mut beside = Beside::new(&server, &image);
    beside.layer(&payload, &ann.sign(&payload)).await;
    beside.put(0).await;
    check(&server.client(dir.path()), &image, &ann.signers()).await.unwrap();
    server.kill();

    // Another process on the same machine.
    let client = server.client(dir.path());
    check(&client, &image, &ann.signers()).await.unwrap();
    let eve = Key::make(dir.path(), "eve").signers();
    let why = check(&client, &image, &eve).await.unwrap_err();
    assert_eq!(why.code(), "image_unreachable", "{why}");

    let kept = |dir: &Path| dir.join(format!("modules/{}.cosign", image.digest().unwrap()));
    let good = fs::read(kept(dir.path())).unwrap();
    let last = good.len() - 10;
    let flipped = [&good[..last], &[good[last] ^ 1], &good[last + 1..]].concat();
    let all = [&flipped[..], b"", b"verified\n", &good[..last], &vec![b'A'; 100_000]];
    // Each in a cache of its own, at once: giving a registry up takes a while.
    let check_changed = async |changed: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("modules")).unwrap();
        fs::write(kept(dir.path()), changed).unwrap();
        check(&server.client(dir.path()), &image, &ann.signers()).await.unwrap_err().code()
    };
    let checks = all.into_iter().map(check_changed);
    assert_eq!(join_all(checks).await, ["image_unreachable"; 5]);
    fs::write(kept(dir.path()), flipped).unwrap();
    // The registry mends it.
    server.start_again();
    check(&client, &image, &ann.signers()).await.unwrap();
    assert!(fs::read(kept(dir.path())).unwrap() == good);
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Takes single words, and what has spaces between them.
fn openssl(words: &[&str]) {
    let words = words.iter().flat_map(|words| words.split(' '));
    let done = Command::new("openssl").args(words).output().expect("openssl is installed");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
