//! Start-up kits as files: plain tar archives of a few short files.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use access::{KIT_FILE_BYTES_MAX, KIT_FILES_MAX, KitFiles};
use anyhow::{Context as _, bail, ensure};

/// No archive of a kit is longer.
const ARCHIVE_BYTES_MAX: u64 = ((KIT_FILE_BYTES_MAX + 1024) * (KIT_FILES_MAX + 1)) as u64;

/// Writes a kit, for its owner alone, to a place where nothing is yet.
pub(crate) fn write(path: &Path, files: &KitFiles) -> anyhow::Result<()> {
    let mut archive = tar::Builder::new(vec![]);
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes.as_slice())?;
    }
    let bytes = archive.into_inner()?;
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = made.and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.with_context(|| format!("write {}", path.display()))
}

/// Reads a kit into memory; nothing of it reaches the disk before it was checked.
pub(crate) fn read(path: &Path) -> anyhow::Result<KitFiles> {
    read_all(path).with_context(|| format!("{} is not a start-up kit", path.display()))
}

fn read_all(path: &Path) -> anyhow::Result<KitFiles> {
    let file = fs::File::open(path)?;
    let len = file.metadata()?.len();
    ensure!(len <= ARCHIVE_BYTES_MAX, "it has {len} bytes, at most {ARCHIVE_BYTES_MAX} are taken");
    let mut files = KitFiles::new();
    for entry in tar::Archive::new(file.take(ARCHIVE_BYTES_MAX)).entries()? {
        let entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let shown: String = name.chars().take(64).collect();
        ensure!(entry.header().entry_type() == tar::EntryType::Regular, "{shown:?} is no file");
        ensure!(files.len() < KIT_FILES_MAX, "it holds more than {KIT_FILES_MAX} files");
        let mut bytes = vec![];
        entry.take(KIT_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if files.insert(name, bytes).is_some() {
            bail!("{shown:?} is in it twice");
        }
    }
    ensure!(!files.is_empty(), "it holds nothing");
    Ok(files)
}
