//! Putting a module into a registry, in the form that other tools for WebAssembly read and write.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::stream;
use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest, OciManifest};
use protocol::{Digest, ImageRef};
use serde_json::json;
use tokio::time;

use crate::{
    Registry, RegistryError,
    manifest::{CONFIG_TYPE, LAYER_TYPES, SIGNATURE},
    pull::Progress,
    remote::{Patience, Remote},
};

/// What goes out between two words on how far it is.
const BLOCK: usize = 64 << 10;
/// A component begins with this, a module with another version.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// What was put there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// By digest.
    pub image: ImageRef,
    pub module: Digest,
    /// Whether the registry had the module already.
    pub was_there: bool,
}

impl Registry {
    /// Puts a module under the image's tag, with the signature of it if there is one. The same
    /// module, pushed again, makes the same image.
    pub async fn push(
        &self,
        image: &ImageRef,
        module: Bytes,
        signature: Option<String>,
        progress: Progress<'_>,
    ) -> Result<Pushed, RegistryError> {
        if image.digest().is_some() {
            let why = "an image is pushed under a tag: its digest is what comes of it".to_owned();
            return Err(RegistryError::Refused { image: image.clone(), why });
        }
        let digest = Digest::of(&module);
        let config = config(&module, digest);
        let layer = descriptor(LAYER_TYPES[0], &module);
        let was_there = self.push_blob(image, module, progress).await?;
        self.push_blob(image, config.clone(), &mut |_, _| {}).await?;
        let annotations = signature.map(|text| BTreeMap::from([(SIGNATURE.to_owned(), text)]));
        let manifest = OciManifest::Image(OciImageManifest {
            media_type: Some(OCI_IMAGE_MEDIA_TYPE.to_owned()),
            config: descriptor(CONFIG_TYPE, &config),
            layers: vec![layer],
            annotations,
            ..OciImageManifest::default()
        });
        let bytes = serde_json::to_vec(&manifest).expect("a manifest serializes");
        let pinned = image.pinned(Digest::of(&bytes));
        let mut patience = Patience::new();
        loop {
            let remote = Remote::open(image, &self.settings).await?;
            let kind = OCI_IMAGE_MEDIA_TYPE.parse().expect("a media type is a header");
            let put = remote.client.push_manifest_raw(&remote.reference, bytes.clone(), kind);
            match remote.in_time(put).await {
                Ok(_) => return Ok(Pushed { image: pinned, module: digest, was_there }),
                Err(why) => patience.bear(why).await?,
            }
        }
    }

    /// Whether it was there already.
    async fn push_blob(
        &self,
        image: &ImageRef,
        bytes: Bytes,
        progress: Progress<'_>,
    ) -> Result<bool, RegistryError> {
        let digest = format!("sha256:{}", Digest::of(&bytes));
        let mut patience = Patience::new();
        loop {
            let remote = Remote::open(image, &self.settings).await?;
            let there = remote.client.blob_exists(&remote.reference, &digest);
            let tried = match remote.in_time(there).await {
                Ok(true) => return Ok(true),
                Ok(false) => upload(&remote, &bytes, &digest, &mut *progress).await,
                Err(why) => Err(why),
            };
            match tried {
                Ok(()) => return Ok(false),
                Err(why) => patience.bear(why).await?,
            }
        }
    }
}

/// However long it takes, as long as it goes on.
async fn upload(
    remote: &Remote,
    bytes: &Bytes,
    digest: &str,
    progress: Progress<'_>,
) -> Result<(), RegistryError> {
    let size = bytes.len() as u64;
    let sent = Arc::new(AtomicU64::new(0));
    let blocks =
        stream::unfold((bytes.clone(), Arc::clone(&sent)), |(mut left, sent)| async move {
            if left.is_empty() {
                return None;
            }
            let block = left.split_to(BLOCK.min(left.len()));
            sent.fetch_add(block.len() as u64, Ordering::Relaxed);
            Some((Ok(block), (left, sent)))
        });
    let put = remote.client.push_blob_stream(&remote.reference, blocks, digest, Some(size));
    tokio::pin!(put);
    let (mut seen, mut since) = (0, time::Instant::now());
    loop {
        let look = time::sleep(remote.stall.min(time::Duration::from_millis(100)));
        tokio::select! {
            done = &mut put => {
                progress(size, size);
                return done.map(drop).map_err(|why| remote.meant(why));
            }
            () = look => {}
        }
        let now = sent.load(Ordering::Relaxed);
        if now > seen {
            (seen, since) = (now, time::Instant::now());
            progress(now, size);
        } else if since.elapsed() > remote.stall {
            return Err(remote.stalled());
        }
    }
}

fn descriptor(kind: &str, bytes: &[u8]) -> OciDescriptor {
    OciDescriptor {
        media_type: kind.to_owned(),
        digest: format!("sha256:{}", Digest::of(bytes)),
        size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
        ..OciDescriptor::default()
    }
}

/// As the CNCF's guidance on WebAssembly in OCI has it. The time is a fixed one, so that the same
/// module is the same image.
fn config(module: &Bytes, digest: Digest) -> Bytes {
    let os = if module.starts_with(COMPONENT) { "wasip2" } else { "wasip1" };
    let text = json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": os,
        "layerDigests": [format!("sha256:{digest}")],
    });
    text.to_string().into()
}
