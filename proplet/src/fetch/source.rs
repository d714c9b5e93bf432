//! Where a program is, as parsed from a task's `image_url`.

use std::{path::PathBuf, str::FromStr};

use bytes::Bytes;
use protocol::{Digest, ImageRef, ImageRefError};

const PIN: &str = "#sha256=";
const TEXT_BYTES_MAX: usize = 4096;

/// Where a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It came with the task.
    Inline(Bytes),
    /// Behind an `http://` or `https://` address.
    Http {
        /// The address, without the pin.
        url: String,
        /// What it has to hash to.
        pin: Option<Digest>,
    },
    /// In a file of this device: `file:///path`, or a path that begins with `/`.
    File {
        /// The file.
        path: PathBuf,
        /// What it has to hash to.
        pin: Option<Digest>,
    },
    /// In a registry: `oci://registry/name:tag`.
    Oci {
        /// The image.
        image: ImageRef,
    },
}

/// A text that names no place a program can be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It begins with something else.
    #[error(
        "{0:?} is not the address of a program; it takes oci://, http://, https://, file:/// or an absolute path"
    )]
    Scheme(String),
    /// There is a pin, but no digest in it.
    #[error("{text:?} is pinned to {pin:?}, which is not a SHA-256 digest (64 hexadecimal digits)")]
    Pin {
        /// The whole.
        text: String,
        /// What stands where the digest should.
        pin: String,
    },
    /// It means an image and names none.
    #[error(transparent)]
    Image(#[from] ImageRefError),
    /// It is longer than any address.
    #[error("an address of {0} bytes is too long (at most {TEXT_BYTES_MAX})")]
    TooLong(usize),
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(SourceError::TooLong(text.len()));
        }
        if ImageRef::is_meant(text) {
            return Ok(Self::Oci { image: text.parse()? });
        }
        let (place, pin) = split_pin(text)?;
        if place.starts_with("http://") || place.starts_with("https://") {
            return Ok(Self::Http { url: place.to_owned(), pin });
        }
        let path = place.strip_prefix("file://").unwrap_or(place);
        if path.starts_with('/') && !path.contains('\0') {
            return Ok(Self::File { path: path.into(), pin });
        }
        Err(SourceError::Scheme(shown(text)))
    }
}

fn split_pin(text: &str) -> Result<(&str, Option<Digest>), SourceError> {
    let Some((place, pin)) = text.split_once(PIN) else { return Ok((text, None)) };
    let digest = pin.to_ascii_lowercase().parse().map_err(|_| SourceError::Pin {
        text: shown(place),
        pin: pin.chars().take(80).collect(),
    })?;
    Ok((place, Some(digest)))
}

/// An address fit for logs and reports: without name, password and query, which may be secrets.
pub(super) fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return clipped(url) };
    let (host, path) = rest.split_once('/').map_or((rest, None), |(h, p)| (h, Some(p)));
    let host = host.rsplit('@').next().unwrap_or_default();
    match path {
        Some(path) => clipped(&format!("{scheme}://{host}/{path}")),
        None => clipped(&format!("{scheme}://{host}")),
    }
}

fn clipped(text: &str) -> String {
    text.chars().take(200).collect()
}
