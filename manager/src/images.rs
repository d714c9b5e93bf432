//! Asks registries what the core wants to know of an image.

use std::time::Duration;

use fleet::{Found, Part, Wanted};
use http_api::ANSWER_MAX;
use protocol::ImageRef;
use registry::{Registry, RegistryError};
use tokio::time;

/// The caller is to hear why before it is told that there is no answer.
const LEEWAY: Duration = Duration::from_secs(1);

/// Registries, and how large a module may be.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    registry: Registry,
    bytes_max: u64,
}

impl Images {
    pub(crate) const fn new(registry: Registry, bytes_max: u64) -> Self {
        Self { registry, bytes_max }
    }

    /// What was found while somebody waits for an answer. What was pulled until then is kept for the
    /// next time.
    pub(crate) async fn find_soon(&self, wanted: &Wanted) -> Result<Found, String> {
        let soon = ANSWER_MAX - LEEWAY;
        let late = || format!("{} is not known within {} s", wanted.image, soon.as_secs());
        time::timeout(soon, self.find(wanted)).await.unwrap_or_else(|_| Err(late()))
    }

    /// What was found, or why not, in words.
    pub(crate) async fn find(&self, wanted: &Wanted) -> Result<Found, String> {
        let image: ImageRef = wanted.image.parse().map_err(|why| format!("image_url: {why}"))?;
        match self.ask(&image, wanted.part).await {
            Ok(found) => {
                tracing::info!(asked = %image, is = found.image, "an image was looked up");
                Ok(found)
            }
            Err(why) => {
                tracing::warn!(code = why.code(), "an image cannot be had: {why}");
                Err(why.to_string())
            }
        }
    }

    async fn ask(&self, image: &ImageRef, part: Part) -> Result<Found, RegistryError> {
        match part {
            Part::Digest => {
                let image = self.registry.resolve(image).await?.to_string();
                Ok(Found { image, module: None, signature: None })
            }
            Part::Module => {
                let pulled = self.registry.pull(image, self.bytes_max, &mut |_, _| {}).await?;
                let (image, module) = pulled;
                let (signature, image) = (image.signature, image.image.to_string());
                Ok(Found { image, module: Some(module.into()), signature })
            }
        }
    }
}
