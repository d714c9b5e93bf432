//! The ways in which an image cannot be had, or not be put.

use std::{io, path::PathBuf, time::Duration};

use protocol::{Digest, ImageRef};

/// Why an image cannot be had, or not be put.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{image}: {host} cannot be reached: {why}")]
    Unreachable { image: ImageRef, host: String, why: String },
    #[error(
        "{image}: {host} does not speak TLS ({why}); if it is meant to be spoken to over plain HTTP, name it in registry_plain_http"
    )]
    PlainHttp { image: ImageRef, host: String, why: String },
    #[error("{image}: the registry wants credentials (401); {told}")]
    Unauthorized { image: ImageRef, told: String },
    #[error("{image}: the registry refuses this to who asks (403); {told}")]
    Denied { image: ImageRef, told: String },
    #[error(
        "{image}: the registry wants name and password to be shown unencrypted, at {realm:?}, and they were not; if they are meant to be, name its host in registry_plain_http"
    )]
    Realm { image: ImageRef, realm: String },
    #[error("{image}: there is no such image")]
    NotFound { image: ImageRef },
    #[error("{image}: the registry says: {why}")]
    Refused { image: ImageRef, why: String },
    #[error("{image}: the registry is in trouble: {why}")]
    Trouble { image: ImageRef, why: String },
    #[error("{image}: no byte came for {} s", stall.as_secs())]
    Stalled { image: ImageRef, stall: Duration },
    #[error("{image}: the connection broke after {have} of {size} bytes: {why}")]
    Broken { image: ImageRef, have: u64, size: u64, why: String },
    #[error("{image}: its bytes have the SHA-256 {found}, not {expected}")]
    Digest { image: ImageRef, expected: String, found: String },
    #[error("{image} has {size} bytes, at most {size_max} are taken")]
    TooLarge { image: ImageRef, size: u64, size_max: u64 },
    #[error("{image}: the registry sent more than the {size} bytes that it had promised")]
    Longer { image: ImageRef, size: u64 },
    #[error("{image} is not an image of one WebAssembly module: {what}")]
    NoModule { image: ImageRef, what: String },
    #[error("{image}: cosign has not signed it as this device wants it: {what}")]
    NotCosigned { image: ImageRef, what: String },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{}: credentials of {host} are with the helper {helper:?}, which is not asked; log in without one, or set registry_username and registry_password_file", path.display()
    )]
    Helper { path: PathBuf, host: String, helper: String },
    #[error("{}: {what}", path.display())]
    AuthFile { path: PathBuf, what: String },
    #[error("{} holds no certificate in PEM", path.display())]
    NoCertificate { path: PathBuf },
    #[error(
        "this machine has no certificates of authorities, so that no registry can be trusted; install them (ca-certificates), or name a file of them in SSL_CERT_FILE"
    )]
    NoRoots,
    #[error("the client of registries cannot be made: {why}")]
    Client { why: String },
    #[error("{0}; given up after {1} attempts in {2} s")]
    GivenUp(Box<Self>, u32, u64),
}

impl RegistryError {
    /// Whether asking again may help.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Trouble { .. }
            | Self::Stalled { .. }
            | Self::Broken { .. } => true,
            Self::PlainHttp { .. }
            | Self::Unauthorized { .. }
            | Self::Denied { .. }
            | Self::Realm { .. }
            | Self::NotFound { .. }
            | Self::Refused { .. }
            | Self::Digest { .. }
            | Self::TooLarge { .. }
            | Self::Longer { .. }
            | Self::NoModule { .. }
            | Self::NotCosigned { .. }
            | Self::File { .. }
            | Self::Helper { .. }
            | Self::AuthFile { .. }
            | Self::NoCertificate { .. }
            | Self::NoRoots
            | Self::Client { .. }
            | Self::GivenUp(..) => false,
        }
    }

    /// A stable word for the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "image_unreachable",
            Self::PlainHttp { .. } => "image_plain_http",
            Self::Unauthorized { .. } => "image_unauthorized",
            Self::Denied { .. } => "image_denied",
            Self::NotFound { .. } => "image_not_found",
            Self::Refused { .. } => "image_refused",
            Self::Trouble { .. } => "image_trouble",
            Self::Stalled { .. } => "image_stalled",
            Self::Broken { .. } => "image_broken",
            Self::Digest { .. } => "image_digest",
            Self::TooLarge { .. } | Self::Longer { .. } => "image_too_large",
            Self::NoModule { .. } => "image_no_module",
            Self::NotCosigned { .. } => "module_unsigned",
            Self::File { .. } => "image_io",
            Self::Realm { .. } | Self::Helper { .. } | Self::AuthFile { .. } => "image_credentials",
            Self::NoCertificate { .. } | Self::NoRoots | Self::Client { .. } => "image_client",
            Self::GivenUp(last, ..) => last.code(),
        }
    }

    pub(crate) fn digest(image: &ImageRef, expected: Digest, found: Digest) -> Self {
        let (expected, found) = (expected.to_string(), found.to_string());
        Self::Digest { image: image.clone(), expected, found }
    }
}
