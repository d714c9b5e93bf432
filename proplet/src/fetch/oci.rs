//! Programs in registries.

use protocol::ImageRef;
use registry::{Cache, Registry};

use super::{FetchError, Fetched, Settings};
use crate::executor::Program;

/// The image's module, with the signature that the image has; from the cache if it was here before.
pub(super) async fn pull(image: &ImageRef, settings: &Settings) -> Result<Fetched, FetchError> {
    let registry = registry(image, settings)?;
    let pulled = registry.pull(image, settings.bytes_max, &mut |_, _| {}).await;
    let (image, bytes) = pulled.map_err(|why| FetchError::Image(Box::new(why)))?;
    tracing::info!(image = %image.image, bytes = bytes.len(), "has the module of an image");
    let registry::Image { image, signature, .. } = image;
    Ok(Fetched { program: Program::new(bytes), signature, image: Some(image) })
}

/// Registries, if the owner lets it talk to them.
pub(super) fn registry(image: &ImageRef, settings: &Settings) -> Result<Registry, FetchError> {
    let Some(registries) = &settings.registries else {
        return Err(FetchError::ImagesOff { image: image.clone() });
    };
    Ok(Registry::new(registries.clone(), settings.cache.clone()))
}

/// A pinned program that was fetched before. What is damaged is fetched again.
pub(super) fn kept(pin: protocol::Digest, settings: &Settings) -> Option<Program> {
    let bytes = settings.cache.as_ref()?.module(pin)?;
    (bytes.len() as u64 <= settings.bytes_max).then(|| Program::new(bytes))
}

/// Keeps a pinned program; without that the next task fetches it again.
pub(super) fn keep(program: &Program, cache: Option<&Cache>) {
    if let Some(cache) = cache {
        cache.keep_module(program.digest(), program.bytes());
    }
}
