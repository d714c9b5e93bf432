//! A device's data as bytes: read once, shared by every guest that sees it, and never changed.

use std::{collections::BTreeMap, fmt, fs, io, path::Path, sync::Arc};

use bytes::Bytes;
use protocol::Digest;
use sha2::{Digest as _, Sha256};

use super::volume::Volume;

/// Directories inside directories; deeper than any data set, and less than any stack.
const DEPTH_MAX: usize = 64;

/// Files that a guest finds in its data directory.
#[derive(Clone)]
pub struct DataSet {
    digest: Digest,
    volume: Arc<Volume>,
}

/// Why files are no data set.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// It is no relative path of plain names, or is a file and a directory at once.
    #[error("{path:?} cannot be a file of a data set")]
    Path {
        /// The path.
        path: String,
    },
    /// The file or directory cannot be read.
    #[error("{path} cannot be read as data")]
    Read {
        /// The path.
        path: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is a link, a socket or a device: what it means depends on the host.
    #[error("{path} is neither a file nor a directory")]
    Kind {
        /// The path.
        path: String,
    },
    /// There are too many directories inside each other.
    #[error("{path} lies more than {DEPTH_MAX} directories deep")]
    Depth {
        /// The path.
        path: String,
    },
}

impl DataSet {
    /// The files by their paths, with `/` between names.
    pub fn new(files: BTreeMap<String, Bytes>) -> Result<Self, DataError> {
        let mut hasher = Sha256::new();
        let mut volume = Volume::empty();
        for (path, bytes) in files {
            hasher.update((path.len() as u64).to_le_bytes());
            hasher.update(path.as_bytes());
            hasher.update(Digest::of(&bytes).to_string());
            if volume.put(&path, bytes).is_none() {
                return Err(DataError::Path { path });
            }
        }
        let digest = Digest::of(&hasher.finalize());
        Ok(Self { digest, volume: Arc::new(volume) })
    }

    /// All files below a directory of the host.
    pub fn read(dir: &Path) -> Result<Self, DataError> {
        let mut files = BTreeMap::new();
        read_into(&mut files, dir, "", 0)?;
        Self::new(files)
    }

    /// A digest of all paths and contents.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn volume(&self) -> Arc<Volume> {
        Arc::clone(&self.volume)
    }
}

impl fmt::Debug for DataSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataSet({})", self.digest)
    }
}

fn read_into(
    files: &mut BTreeMap<String, Bytes>,
    dir: &Path,
    prefix: &str,
    depth: usize,
) -> Result<(), DataError> {
    if depth > DEPTH_MAX {
        return Err(DataError::Depth { path: dir.display().to_string() });
    }
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |source| DataError::Read { path, source }
    };
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let entry = entry.map_err(failed(dir))?;
        let path = entry.path();
        let name = entry.file_name().into_string();
        let name = name.map_err(|name| DataError::Path { path: name.display().to_string() })?;
        let kind = entry.file_type().map_err(failed(&path))?;
        let inner = format!("{prefix}{name}");
        if kind.is_dir() {
            read_into(files, &path, &format!("{inner}/"), depth + 1)?;
        } else if kind.is_file() {
            files.insert(inner, fs::read(&path).map_err(failed(&path))?.into());
        } else {
            return Err(DataError::Kind { path: path.display().to_string() });
        }
    }
    Ok(())
}
