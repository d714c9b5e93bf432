//! Programs in files that the owner of the device offers.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{FetchError, Settings};

/// The bytes of a file below the module directory; links are followed, and may not lead outside.
pub(super) fn read(path: &Path, settings: &Settings) -> Result<Vec<u8>, FetchError> {
    let Some(module_dir) = &settings.module_dir else {
        return Err(FetchError::FilesOff { path: path.to_owned() });
    };
    let outside = || FetchError::Outside { path: path.to_owned(), module_dir: module_dir.clone() };
    let allowed = canonical(module_dir)?;
    // A path outside is refused before it is looked at: whether it exists is nobody's business.
    let plainly_below = path.starts_with(module_dir) || path.starts_with(&allowed);
    if !plainly_below || path.components().any(|it| it == std::path::Component::ParentDir) {
        return Err(outside());
    }
    let real = canonical(path)?;
    if !real.starts_with(&allowed) {
        return Err(outside());
    }
    let failed = |source| FetchError::Io { path: path.to_owned(), source };
    if !fs::metadata(&real).map_err(failed)?.is_file() {
        return Err(FetchError::NotAFile { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(&real).map_err(failed)?;
    let limit = settings.bytes_max.saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn canonical(path: &Path) -> Result<PathBuf, FetchError> {
    fs::canonicalize(path).map_err(|source| FetchError::Io { path: path.to_owned(), source })
}
