//! The directory of model files: one file a version, written all at once or not at all.
//!
//! A file is written beside its place, flushed to the disk, and renamed into it; then the directory
//! is flushed. A reader sees the whole file or none, also after a power cut.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use lineage::{Found, FoundContent, MODEL_LEN_MAX, Offer};
use protocol::{Digest, ModelVersion};

const PREFIX: &str = "global_model_v";
const SUFFIX: &str = ".json";
const UNFINISHED: &str = ".tmp";

/// The one owner of the model files.
#[derive(Debug)]
pub(crate) struct Shelf {
    dir: PathBuf,
}

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShelfError {
    #[error("{action} {path}: {source}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} has {len} bytes, at most {MODEL_LEN_MAX} are read")]
    TooLarge { path: PathBuf, len: u64 },
}

impl Shelf {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Every model file, one in memory at a time; what was left unfinished is removed.
    pub(crate) fn scan(&self, unknown_from: ModelVersion) -> Result<Vec<Found>, ShelfError> {
        let mut versions = vec![];
        let entries = fs::read_dir(&self.dir).map_err(failed("read directory", &self.dir))?;
        for entry in entries {
            let path = entry.map_err(failed("read directory", &self.dir))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.starts_with(PREFIX) && name.ends_with(UNFINISHED) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
            versions.extend(version(name));
        }
        versions.sort_unstable();
        Ok(versions.into_iter().map(|version| self.look(version, unknown_from)).collect())
    }

    fn look(&self, version: ModelVersion, unknown_from: ModelVersion) -> Found {
        let content = self.read(version).map(|(payload, digest)| {
            let len = payload.len() as u64;
            let claims = (version >= unknown_from).then(|| {
                Offer::read(payload).map(|offer| offer.version()).map_err(|why| why.to_string())
            });
            FoundContent { digest, len, claims }
        });
        Found { version, content: content.map_err(|why| why.to_string()) }
    }

    pub(crate) fn read(&self, version: ModelVersion) -> Result<(Bytes, Digest), ShelfError> {
        let path = self.path(version);
        let len = fs::metadata(&path).map_err(failed("read", &path))?.len();
        if len > MODEL_LEN_MAX as u64 {
            return Err(ShelfError::TooLarge { path, len });
        }
        let bytes = fs::read(&path).map_err(failed("read", &path))?;
        let digest = Digest::of(&bytes);
        Ok((bytes.into(), digest))
    }

    /// Puts a version in its place. What stands there with other bytes is moved aside.
    pub(crate) fn write(&self, version: ModelVersion, payload: &[u8]) -> Result<(), ShelfError> {
        let path = self.path(version);
        let unfinished = self.dir.join(format!("{PREFIX}{version}{SUFFIX}{UNFINISHED}"));
        if let Err(why) = fill(&unfinished, payload) {
            // The room that a half-written file takes may be what the next attempt lacks.
            drop(fs::remove_file(&unfinished));
            return Err(why);
        }
        if path.exists() {
            self.quarantine(version)?;
        }
        fs::rename(&unfinished, &path).map_err(failed("rename to", &path))?;
        self.flush()
    }

    /// Moves a version's file to a name that nothing reads; returns that name.
    pub(crate) fn quarantine(&self, version: ModelVersion) -> Result<PathBuf, ShelfError> {
        let path = self.path(version);
        let aside = (1_u64..)
            .map(|n| self.dir.join(format!("{PREFIX}{version}{SUFFIX}.corrupt-{n}")))
            .find(|aside| !aside.exists())
            .expect("some number is free");
        fs::rename(&path, &aside).map_err(failed("move aside", &path))?;
        self.flush()?;
        Ok(aside)
    }

    fn path(&self, version: ModelVersion) -> PathBuf {
        self.dir.join(format!("{PREFIX}{version}{SUFFIX}"))
    }

    /// A rename is durable once its directory is.
    fn flush(&self) -> Result<(), ShelfError> {
        let flushed = File::open(&self.dir).and_then(|dir| dir.sync_all());
        flushed.map_err(failed("flush directory", &self.dir))
    }
}

fn fill(path: &Path, payload: &[u8]) -> Result<(), ShelfError> {
    let mut file = File::create(path).map_err(failed("create", path))?;
    file.write_all(payload).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("flush", path))
}

/// Only the canonical name, so that one version has one file.
fn version(name: &str) -> Option<ModelVersion> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    digits.parse::<u64>().ok().filter(|n| n.to_string() == digits).map(ModelVersion)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ShelfError {
    let path = path.to_owned();
    move |source| ShelfError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V0: ModelVersion = ModelVersion(0);
    const MODEL: &[u8] = br#"{"w":[0.5],"version":0}"#;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_written_is_read_back_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path());
        shelf.write(V0, MODEL).unwrap();
        assert_eq!(shelf.read(V0).unwrap(), (Bytes::from_static(MODEL), Digest::of(MODEL)));
        assert_eq!(names(dir.path()), ["global_model_v0.json"]);
    }

    #[test]
    fn other_bytes_are_moved_aside_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path());
        for payload in [&b"first"[..], b"second", MODEL] {
            shelf.write(V0, payload).unwrap();
        }
        assert_eq!(
            names(dir.path()),
            [
                "global_model_v0.json",
                "global_model_v0.json.corrupt-1",
                "global_model_v0.json.corrupt-2"
            ]
        );
        let aside = dir.path().join("global_model_v0.json.corrupt-2");
        assert_eq!(fs::read(aside).unwrap(), b"second");
    }

    #[test]
    fn a_scan_sees_models_only_and_sweeps_what_was_left_unfinished() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path());
        shelf.write(V0, MODEL).unwrap();
        for name in
            ["global_model_v1.json.tmp", "global_model_v01.json", "global_model_v-1.json", "notes"]
        {
            fs::write(dir.path().join(name), MODEL).unwrap();
        }
        let found = shelf.scan(V0).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].content.as_ref().unwrap().claims, Some(Ok(V0)));
        assert!(!names(dir.path()).contains(&"global_model_v1.json.tmp".to_owned()));
        assert_eq!(shelf.scan(V0.next()).unwrap()[0].content.as_ref().unwrap().claims, None);
    }

    #[test]
    fn a_write_that_cannot_be_done_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path());
        shelf.write(V0, MODEL).unwrap();
        fs::create_dir(dir.path().join("global_model_v0.json.tmp")).unwrap();
        assert!(shelf.write(V0, b"other").is_err());
        assert_eq!(shelf.read(V0).unwrap().0, MODEL);
    }
}
