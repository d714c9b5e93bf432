//! What cosign puts beside an image: another one, under a tag that names the first one's digest, of
//! what was signed and its signatures. Whether one of them holds, is for the caller to judge; what
//! held is kept, and judged again each time.

use std::collections::BTreeSet;

use futures::StreamExt as _;
use oci_client::manifest::{OciDescriptor, OciManifest};
use protocol::{Digest, ImageRef};
use tokio::time;

use crate::{
    Registry, RegistryError,
    remote::{REQUESTS_MAX, Remote, chain},
};

/// What a layer is called that is something signed.
const LAYER_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Where the signature of the layer stands.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// Signatures without a key of one's own bring certificates, some kilobytes each.
const MANIFEST_LEN_MAX: usize = 1 << 20;
const PAYLOAD_LEN_MAX: u64 = 16 << 10;
const SIGNATURE_LEN_MAX: usize = 1024;
/// What is kept: a signature, a line's end, and what is signed.
const KEPT_LEN_MAX: u64 = SIGNATURE_LEN_MAX as u64 + 1 + PAYLOAD_LEN_MAX;
/// More are not looked at.
const SIGNATURES_MAX: usize = 32;
const REASONS_LEN_MAX: usize = 500;

/// What was signed, and its signature; nobody has checked either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigned {
    pub payload: Vec<u8>,
    /// Base64.
    pub signature: String,
}

/// Says whether it is a good signature of the image whose manifest has this digest, or why not.
pub type Judge<'a> = &'a (dyn Fn(Digest, &Cosigned) -> Result<(), String> + Sync);

impl Registry {
    /// Whether cosign has signed the image, as the judge sees it. What has convinced it once takes no
    /// network.
    pub async fn cosigned(&self, image: &ImageRef, judge: Judge<'_>) -> Result<(), RegistryError> {
        let image = self.resolve(image).await?;
        let digest = image.digest().expect("a tag was looked up");
        if let Some(kept) = self.kept(digest) {
            match judge(digest, &kept) {
                Ok(()) => return Ok(()),
                Err(why) => tracing::warn!(%image, "what was kept of cosign does not do: {why}"),
            }
        }
        let tag = format!("sha256-{digest}.sig");
        let beside = format!("oci://{}/{}:{tag}", image.host(), image.name());
        let beside: ImageRef = beside.parse().expect("an image's name and a tag");
        let not = |what| RegistryError::NotCosigned { image: image.clone(), what };
        let asked = self.ask(&beside, |remote| async move { remote.manifest_now().await });
        let manifest = match asked.await {
            Err(RegistryError::NotFound { .. }) => {
                return Err(not(format!("there is no {tag} beside it")));
            }
            found => found?,
        };
        let layers = layers(&manifest).map_err(|what| not(format!("{tag} {what}")))?;
        let mut reasons = BTreeSet::new();
        for layer in layers.iter().take(SIGNATURES_MAX) {
            let judged = match self.signed(&beside, layer).await {
                Ok(signed) => judge(digest, &signed).map(|()| signed),
                // The next one would not come, either.
                Err(why @ RegistryError::GivenUp(..)) => return Err(why),
                Err(why) => Err(why.to_string()),
            };
            match judged {
                Ok(signed) => {
                    self.keep_signed(digest, &signed);
                    return Ok(());
                }
                Err(why) => drop(reasons.insert(why)),
            }
        }
        let reasons: String = reasons.into_iter().collect::<Vec<_>>().join("; ");
        let reasons: String = reasons.chars().take(REASONS_LEN_MAX).collect();
        let count = layers.len();
        let looked_at = match count {
            0..=SIGNATURES_MAX => format!("of {count} signatures none holds"),
            _ => format!("of {count} signatures none of the first {SIGNATURES_MAX} holds"),
        };
        Err(not(format!("{looked_at}: {reasons}")))
    }

    fn kept(&self, image: Digest) -> Option<Cosigned> {
        let bytes = self.cache.as_ref()?.cosigned(image, KEPT_LEN_MAX)?;
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let signature = String::from_utf8(bytes[..end].to_vec()).ok()?;
        Some(Cosigned { payload: bytes[end + 1..].to_vec(), signature })
    }

    fn keep_signed(&self, image: Digest, signed: &Cosigned) {
        if let Some(cache) = &self.cache {
            let bytes = [signed.signature.as_bytes(), b"\n", &signed.payload].concat();
            cache.keep_cosigned(image, &bytes);
        }
    }

    /// A layer of it: what was signed, which has the layer's digest, and the signature.
    async fn signed(
        &self,
        beside: &ImageRef,
        layer: &OciDescriptor,
    ) -> Result<Cosigned, RegistryError> {
        let not = |what: &str| {
            Err(RegistryError::NotCosigned { image: beside.clone(), what: what.to_owned() })
        };
        let noted = layer.annotations.as_ref().and_then(|all| all.get(SIGNATURE));
        let Some(signature) = noted.map(|text| text.trim()).filter(|text| !text.is_empty()) else {
            return not("a layer has no signature");
        };
        if signature.len() > SIGNATURE_LEN_MAX {
            return not("a signature is too long to be one");
        }
        let digest = layer.digest.strip_prefix("sha256:").and_then(|digits| digits.parse().ok());
        let Some(digest) = digest else { return not("a layer is not named by a SHA-256") };
        let size = u64::try_from(layer.size).unwrap_or(u64::MAX);
        if size > PAYLOAD_LEN_MAX {
            let (image, size_max) = (beside.clone(), PAYLOAD_LEN_MAX);
            return Err(RegistryError::TooLarge { image, size, size_max });
        }
        let asked = self.ask(beside, |remote| async move {
            let whole = time::timeout(
                remote.stall * REQUESTS_MAX * 2,
                payload(&remote, &layer.digest, (digest, size)),
            );
            whole.await.unwrap_or_else(|_| Err(remote.stalled()))
        });
        Ok(Cosigned { payload: asked.await?, signature: signature.to_owned() })
    }
}

/// Those that are something signed.
fn layers(manifest: &[u8]) -> Result<Vec<OciDescriptor>, String> {
    if manifest.len() > MANIFEST_LEN_MAX {
        let len = manifest.len();
        return Err(format!("has a manifest of {len} bytes, at most {MANIFEST_LEN_MAX} are read"));
    }
    let manifest = match serde_json::from_slice(manifest) {
        Ok(OciManifest::Image(manifest)) => manifest,
        Ok(OciManifest::ImageIndex(_)) => return Err("is a list of images".to_owned()),
        Err(why) => return Err(format!("has a manifest that cannot be read ({why})")),
    };
    let mut layers = manifest.layers;
    layers.retain(|layer| layer.media_type == LAYER_TYPE);
    if layers.is_empty() {
        return Err("holds no signature of the kind that is read here".to_owned());
    }
    Ok(layers)
}

async fn payload(
    remote: &Remote,
    name: &str,
    (digest, size): (Digest, u64),
) -> Result<Vec<u8>, RegistryError> {
    let image = || remote.image.clone();
    let asked = remote.client.pull_blob_stream(&remote.reference, name);
    let mut stream = remote.in_time(asked).await?.stream;
    let mut payload = vec![];
    while let Some(next) = stream.next().await {
        let bytes = match next {
            Ok(bytes) => bytes,
            // That the whole does not have its digest is said below, with ours.
            Err(_) if payload.len() as u64 == size => break,
            Err(why) => {
                let (have, why) = (payload.len() as u64, chain(&why));
                return Err(RegistryError::Broken { image: image(), have, size, why });
            }
        };
        if (payload.len() + bytes.len()) as u64 > size {
            return Err(RegistryError::Longer { image: image(), size });
        }
        payload.extend_from_slice(&bytes);
    }
    let found = Digest::of(&payload);
    if found != digest {
        return Err(RegistryError::digest(&remote.image, digest, found));
    }
    Ok(payload)
}
