//! The ways in which a program cannot be had.

use std::{io, path::PathBuf};

use protocol::{Digest, ImageRef};
use registry::RegistryError;

/// Why a program cannot be had. Addresses are shown without names, passwords and queries.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is nothing there.
    #[error("{from} is empty")]
    Empty {
        /// Where.
        from: String,
    },
    /// It is larger than the owner allows.
    #[error("{from} is larger than {bytes_max} bytes")]
    TooLarge {
        /// Where.
        from: String,
        /// The limit.
        bytes_max: u64,
    },
    /// It is not what was asked for.
    #[error("{from} has the SHA-256 {found}, not {expected}")]
    Digest {
        /// Where.
        from: String,
        /// What was asked for.
        expected: Digest,
        /// What was there.
        found: Digest,
    },
    /// The server answered something else than 200.
    #[error("{url} answered with status {status}")]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: u16,
    },
    /// The server did not answer, or not to the end.
    #[error("{url}: {source}")]
    Http {
        /// The address.
        url: String,
        /// What failed.
        source: Box<ureq::Error>,
    },
    /// The owner has opened no directory for programs.
    #[error("{} is a local file, and this device has no module directory", path.display())]
    FilesOff {
        /// The file.
        path: PathBuf,
    },
    /// The file lies outside the directory that the owner has opened.
    #[error("{} lies outside the module directory {}", path.display(), module_dir.display())]
    Outside {
        /// The file.
        path: PathBuf,
        /// The directory.
        module_dir: PathBuf,
    },
    /// It is a directory, a pipe or a device.
    #[error("{} is not a plain file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The owner does not let it talk to registries.
    #[error("{image}: this device does not pull images (image_pull is off)")]
    ImagesOff {
        /// The image.
        image: ImageRef,
    },
    /// The image cannot be had.
    #[error(transparent)]
    Image(Box<RegistryError>),
    /// The device shut down, or its thread broke.
    #[error("the fetch was interrupted: {reason}")]
    Interrupted {
        /// What happened.
        reason: String,
    },
}

impl FetchError {
    /// A stable word for the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty { .. } => "fetch_empty",
            Self::TooLarge { .. } => "fetch_too_large",
            Self::Digest { .. } => "fetch_digest",
            Self::Status { .. } => "fetch_status",
            Self::Http { .. } => "fetch_http",
            Self::FilesOff { .. } => "fetch_files_off",
            Self::Outside { .. } => "fetch_outside",
            Self::NotAFile { .. } => "fetch_not_a_file",
            Self::Io { .. } => "fetch_io",
            Self::ImagesOff { .. } => "image_pull_off",
            Self::Image(why) => why.code(),
            Self::Interrupted { .. } => "fetch_interrupted",
        }
    }
}
