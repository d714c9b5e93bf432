//! Programs in files: those the owner of the device offers, and those kept from the network.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process,
};

use protocol::Digest;

use super::{FetchError, Program, Settings};

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

/// A pinned program that was fetched before. What is damaged is fetched again.
pub(super) fn kept(pin: Digest, settings: &Settings) -> Option<Program> {
    let path = place(pin, settings)?;
    if fs::metadata(&path).ok()?.len() > settings.bytes_max {
        return None;
    }
    let program = Program::new(fs::read(path).ok()?);
    (program.digest() == pin).then_some(program)
}

/// Keeps a pinned program; without that the next task fetches it again.
pub(super) fn keep(program: &Program, settings: &Settings) {
    let Some(path) = place(program.digest(), settings) else { return };
    if let Err(error) = write(&path, program.bytes()) {
        tracing::warn!(file = %path.display(), %error, "a fetched program cannot be kept");
    }
}

fn place(digest: Digest, settings: &Settings) -> Option<PathBuf> {
    Some(settings.cache_dir.as_ref()?.join(format!("{digest}.wasm")))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let unfinished = path.with_added_extension(format!("{}.unfinished", process::id()));
    let mut file = fs::File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

fn canonical(path: &Path) -> Result<PathBuf, FetchError> {
    fs::canonicalize(path).map_err(|source| FetchError::Io { path: path.to_owned(), source })
}
