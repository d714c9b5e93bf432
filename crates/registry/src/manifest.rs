//! What the manifest of an image says: which of its layers is the module, and who signed it.

use std::collections::BTreeMap;

use oci_client::manifest::{OciDescriptor, OciImageManifest, OciManifest};
use protocol::{Digest, ImageRef};

use crate::RegistryError;

/// What a layer is called that is a module: by the CNCF's guidance and `wkg`, and by `wasm-to-oci`.
pub(crate) const LAYER_TYPES: [&str; 2] =
    ["application/wasm", "application/vnd.wasm.content.layer.v1+wasm"];
/// What the configuration of an image of one module is called.
pub(crate) const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
/// Where the signature of the module stands.
pub(crate) const SIGNATURE: &str = "dev.aileron.signature";
const SIGNATURE_LEN_MAX: usize = 1024;

/// An image of one module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// By digest.
    pub image: ImageRef,
    /// The SHA-256 of the module.
    pub module: Digest,
    pub size: u64,
    /// As it stands in the image; nobody has checked it yet.
    pub signature: Option<String>,
    pub(crate) layer: Layer,
}

/// What the registry calls the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer(pub(crate) String);

impl Image {
    /// Out of the bytes of a manifest that have the digest of `image`.
    pub(crate) fn read(image: &ImageRef, bytes: &[u8]) -> Result<Self, RegistryError> {
        let none = |what: String| RegistryError::NoModule { image: image.clone(), what };
        let manifest: OciManifest = serde_json::from_slice(bytes)
            .map_err(|why| none(format!("its manifest cannot be read ({why})")))?;
        let manifest = match manifest {
            OciManifest::Image(manifest) => manifest,
            OciManifest::ImageIndex(index) => {
                let count = index.manifests.len();
                return Err(none(format!(
                    "it is a list of {count} images; name one by its digest"
                )));
            }
        };
        let layer = only_module(&manifest).map_err(none)?;
        let digest = layer.digest.strip_prefix("sha256:").and_then(|digits| digits.parse().ok());
        let module = digest.ok_or_else(|| {
            none(format!("its layer {:?} is not named by a SHA-256", clipped(&layer.digest)))
        })?;
        let size = u64::try_from(layer.size)
            .map_err(|_| none(format!("its layer has {} bytes", layer.size)))?;
        let signature = manifest.annotations.as_ref().and_then(|all| all.get(SIGNATURE)).cloned();
        let signature = signature.filter(|text| text.len() <= SIGNATURE_LEN_MAX);
        Ok(Self {
            image: image.clone(),
            module,
            size,
            signature,
            layer: Layer(layer.digest.clone()),
        })
    }
}

fn only_module(manifest: &OciImageManifest) -> Result<&OciDescriptor, String> {
    let is_module = |layer: &&OciDescriptor| LAYER_TYPES.contains(&layer.media_type.as_str());
    let modules: Vec<_> = manifest.layers.iter().filter(is_module).collect();
    match modules.as_slice() {
        [module] => Ok(module),
        [] => {
            let mut found: BTreeMap<String, usize> = BTreeMap::new();
            for layer in &manifest.layers {
                *found.entry(clipped(&layer.media_type)).or_default() += 1;
            }
            let found: Vec<_> =
                found.iter().map(|(kind, count)| format!("{count} of {kind}")).collect();
            let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
            Err(format!("its layers are {found}, and not {}", LAYER_TYPES.join(" or ")))
        }
        many => Err(format!("it has {} modules", many.len())),
    }
}

fn clipped(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(layers: &str) -> Result<Image, RegistryError> {
        let digest = Digest::of(b"config");
        let text = format!(
            r#"{{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {{"mediaType": "{CONFIG_TYPE}", "digest": "sha256:{digest}", "size": 6}},
            "layers": [{layers}], "annotations": {{"dev.aileron.signature": "s"}}}}"#
        );
        let image: ImageRef = "oci://r.example/a:1".parse().unwrap();
        Image::read(&image.pinned(Digest::of(text.as_bytes())), text.as_bytes())
    }

    fn layer(kind: &str, size: i64) -> String {
        let digest = Digest::of(b"module");
        format!(r#"{{"mediaType": "{kind}", "digest": "sha256:{digest}", "size": {size}}}"#)
    }

    #[test]
    fn modules_of_every_tool_are_found() {
        for kind in LAYER_TYPES {
            let notes = layer("text/plain", 3);
            let image = read(&format!("{notes},{}", layer(kind, 6))).unwrap();
            assert_eq!((image.module, image.size), (Digest::of(b"module"), 6));
            assert_eq!(image.signature.as_deref(), Some("s"));
        }
    }

    #[test]
    fn what_is_no_module_is_said() {
        let tar = layer("application/vnd.oci.image.layer.v1.tar+gzip", 6);
        let module = layer("application/wasm", 6);
        let nameless = module.replace("sha256:", "md5:");
        let index = r#"{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}"#;
        for (layers, word) in [
            (format!("{tar},{tar}"), "2 of application/vnd.oci.image.layer.v1.tar+gzip"),
            (String::new(), "none"),
            (format!("{module},{module}"), "2 modules"),
            (nameless, "md5:"),
            (layer("application/wasm", -1), "-1"),
            ("{".to_owned(), "cannot be read"),
        ] {
            let why = read(&layers).unwrap_err();
            assert!(why.to_string().contains(word), "{why}");
            assert_eq!(why.code(), "image_no_module");
        }
        let image: ImageRef = "oci://r.example/a:1".parse().unwrap();
        let why = Image::read(&image, index.as_bytes()).unwrap_err().to_string();
        assert!(why.contains("list of 0 images"), "{why}");
    }
}
