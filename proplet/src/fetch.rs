//! Gets the bytes of a program from where a task says they are: in the message itself, at an http
//! address, in a registry, or in a directory that the owner of the device has opened for it.
//!
//! A reference may pin what it names with `#sha256=<64 hexadecimal digits>` at its end; then other
//! bytes are refused, and what came over the network is kept by that digest.

mod error;
mod http;
mod local;
mod oci;
mod source;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use protocol::{Digest, ImageRef};
use registry::Cache;
use tokio::task;

pub use error::FetchError;
pub use source::{Source, SourceError};

use crate::executor::Program;

/// What the owner of the device allows to be fetched.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Programs may be read from files below this directory; without it, from none.
    pub module_dir: Option<PathBuf>,
    /// Where programs from registries, and pinned ones from the network, are kept.
    pub cache: Option<Cache>,
    /// How registries are spoken to; without it, not at all.
    pub registries: Option<registry::Settings>,
    /// The largest program.
    pub bytes_max: u64,
    /// The longest time for one download, redirections included.
    pub timeout: Duration,
    /// How many redirections are followed.
    pub redirects_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            module_dir: None,
            cache: None,
            registries: None,
            bytes_max: 64 << 20,
            timeout: Duration::from_secs(60),
            redirects_max: 5,
        }
    }
}

/// A program, and who vouches for it.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub program: Program,
    /// As it stands where the program does; nobody has checked it yet.
    pub signature: Option<String>,
    /// Where it came from, by digest, if that is an image.
    pub image: Option<ImageRef>,
}

/// The program from `source`. It blocks no thread of the runtime; a download that nobody waits for
/// any more ends at its time limit.
pub async fn fetch(source: Source, settings: &Settings) -> Result<Fetched, FetchError> {
    if let Source::Oci { image } = &source {
        return oci::pull(image, settings).await;
    }
    let settings = settings.clone();
    let fetched = task::spawn_blocking(move || fetch_blocking(&source, &settings));
    let program = fetched.await;
    let program = program
        .unwrap_or_else(|error| Err(FetchError::Interrupted { reason: error.to_string() }))?;
    Ok(Fetched { program, signature: None, image: None })
}

/// Whether cosign has signed an image, as the judge sees it.
#[cfg(feature = "cosign")]
pub(crate) async fn cosigned(
    image: &ImageRef,
    settings: &Settings,
    judge: registry::Judge<'_>,
) -> Result<(), FetchError> {
    let registry = oci::registry(image, settings)?;
    registry.cosigned(image, judge).await.map_err(|why| FetchError::Image(Box::new(why)))
}

fn fetch_blocking(source: &Source, settings: &Settings) -> Result<Program, FetchError> {
    match source {
        Source::Inline(bytes) => {
            let program = checked("the task's own file", bytes.clone(), settings)?;
            Ok(program)
        }
        Source::File { path, pin } => {
            let bytes = local::read(path, settings)?;
            let from = path.display().to_string();
            pinned(&from, checked(&from, bytes.into(), settings)?, *pin)
        }
        Source::Http { url, pin } => {
            if let Some(kept) = pin.and_then(|pin| oci::kept(pin, settings)) {
                return Ok(kept);
            }
            let from = source::shown(url);
            let bytes = http::get(url, settings)?;
            let program = pinned(&from, checked(&from, bytes.into(), settings)?, *pin)?;
            if pin.is_some() {
                oci::keep(&program, settings.cache.as_ref());
            }
            Ok(program)
        }
        Source::Oci { image } => Err(FetchError::ImagesOff { image: image.clone() }),
    }
}

fn checked(from: &str, bytes: Bytes, settings: &Settings) -> Result<Program, FetchError> {
    if bytes.is_empty() {
        return Err(FetchError::Empty { from: from.to_owned() });
    }
    if bytes.len() as u64 > settings.bytes_max {
        return Err(FetchError::TooLarge { from: from.to_owned(), bytes_max: settings.bytes_max });
    }
    Ok(Program::new(&bytes[..]))
}

fn pinned(from: &str, program: Program, pin: Option<Digest>) -> Result<Program, FetchError> {
    match pin {
        Some(pin) if pin != program.digest() => Err(FetchError::Digest {
            from: from.to_owned(),
            expected: pin,
            found: program.digest(),
        }),
        Some(_) | None => Ok(program),
    }
}
