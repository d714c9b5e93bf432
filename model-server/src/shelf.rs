//! The directory of model files: one file a version, JSON or safetensors as it came, written all at
//! once or not at all.
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
use protocol::{Digest, Form, ModelLine, ModelVersion};

use crate::pieces::LARGE;

const UNFINISHED: &str = ".tmp";

/// The one owner of the model files of one line.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    dir: PathBuf,
    /// What the names of its files begin with.
    prefix: String,
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
    pub(crate) fn new(dir: &Path, line: &ModelLine) -> Self {
        Self { dir: dir.to_owned(), prefix: format!("{line}_v") }
    }

    /// Every model file, one in memory at a time; what was left unfinished is removed.
    pub(crate) fn scan(&self, unknown_from: ModelVersion) -> Result<Vec<Found>, ShelfError> {
        let mut versions = vec![];
        let entries = fs::read_dir(&self.dir).map_err(failed("read directory", &self.dir))?;
        for entry in entries {
            let path = entry.map_err(failed("read directory", &self.dir))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if self.is_unfinished(name) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
            versions.extend(self.version(name));
        }
        versions.sort_unstable();
        versions.dedup();
        Ok(versions.into_iter().map(|version| self.look(version, unknown_from)).collect())
    }

    fn look(&self, version: ModelVersion, unknown_from: ModelVersion) -> Found {
        let (path, _) = self.file(version);
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > LARGE) {
            return Found { version, content: self.look_at_large(version) };
        }
        let content = self.read(version).map(|(payload, digest)| {
            let len = payload.len() as u64;
            let form = self.form(version);
            let claims = (version >= unknown_from).then(|| {
                Offer::read(payload).map(|offer| offer.version()).map_err(|why| why.to_string())
            });
            FoundContent { digest, len, form, claims }
        });
        Found { version, content: content.map_err(|why| why.to_string()) }
    }

    pub(crate) fn read(&self, version: ModelVersion) -> Result<(Bytes, Digest), ShelfError> {
        let path = self.path(version, self.form(version));
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
        let form = Form::of(payload);
        let path = self.path(version, form);
        let unfinished = self.dir.join(format!("{}{UNFINISHED}", self.name(version, form)));
        if let Err(why) = fill(&unfinished, payload) {
            // The room that a half-written file takes may be what the next attempt lacks.
            drop(fs::remove_file(&unfinished));
            return Err(why);
        }
        if self.path(version, self.form(version)).exists() {
            self.quarantine(version)?;
        }
        fs::rename(&unfinished, &path).map_err(failed("rename to", &path))?;
        self.flush()
    }

    /// Moves a version's file to a name that nothing reads; returns that name.
    pub(crate) fn quarantine(&self, version: ModelVersion) -> Result<PathBuf, ShelfError> {
        let form = self.form(version);
        let path = self.path(version, form);
        let aside = (1_u64..)
            .map(|n| self.dir.join(format!("{}.corrupt-{n}", self.name(version, form))))
            .find(|aside| !aside.exists())
            .expect("some number is free");
        fs::rename(&path, &aside).map_err(failed("move aside", &path))?;
        self.flush()?;
        Ok(aside)
    }

    /// Where the version's file is, or would be.
    pub(crate) fn file(&self, version: ModelVersion) -> (PathBuf, Form) {
        let form = self.form(version);
        (self.path(version, form), form)
    }

    pub(crate) fn path(&self, version: ModelVersion, form: Form) -> PathBuf {
        self.dir.join(self.name(version, form))
    }

    fn name(&self, version: ModelVersion, form: Form) -> String {
        format!("{}{version}.{form}", self.prefix)
    }

    /// Only the canonical name, so that one version has one file.
    fn version(&self, name: &str) -> Option<ModelVersion> {
        let (digits, ending) = name.strip_prefix(&self.prefix)?.split_once('.')?;
        Form::ALL.into_iter().find(|form| form.as_str() == ending)?;
        digits.parse::<u64>().ok().filter(|n| n.to_string() == digits).map(ModelVersion)
    }

    /// Other lines may be writing at this moment: only what belongs to this one is left over.
    fn is_unfinished(&self, name: &str) -> bool {
        name.strip_suffix(UNFINISHED).is_some_and(|name| self.version(name).is_some())
    }

    /// The form of the version's file; that of text where there is none.
    fn form(&self, version: ModelVersion) -> Form {
        let found = Form::ALL.into_iter().find(|form| self.path(version, *form).exists());
        found.unwrap_or_default()
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

pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ShelfError {
    let path = path.to_owned();
    move |source| ShelfError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use protocol::message::Model;

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
        let shelf = Shelf::new(dir.path(), &ModelLine::default());
        shelf.write(V0, MODEL).unwrap();
        assert_eq!(shelf.read(V0).unwrap(), (Bytes::from_static(MODEL), Digest::of(MODEL)));
        assert_eq!(names(dir.path()), ["global_model_v0.json"]);
    }

    #[test]
    fn other_bytes_are_moved_aside_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path(), &ModelLine::default());
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
        let shelf = Shelf::new(dir.path(), &ModelLine::default());
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
    fn a_version_has_one_file_in_the_form_it_came_in() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path(), &ModelLine::default());
        let w = protocol::Tensor::from_f32(vec![1], &[0.5]).unwrap();
        let tensors: protocol::Tensors = [("w".to_owned(), w)].into_iter().collect();
        let model = |version| Model { version, tensors: tensors.clone(), form: Form::Safetensors };
        let binary = model(V0).write();
        shelf.write(V0, MODEL).unwrap();
        shelf.write(V0, &binary).unwrap();
        shelf.write(V0.next(), &model(V0.next()).write()).unwrap();
        let expected = [
            "global_model_v0.json.corrupt-1",
            "global_model_v0.safetensors",
            "global_model_v1.safetensors",
        ];
        assert_eq!(names(dir.path()), expected);
        assert_eq!(shelf.read(V0).unwrap(), (binary.clone(), Digest::of(&binary)));
        let found = shelf.scan(V0).unwrap();
        assert_eq!(found.len(), 2);
        for (version, found) in [V0, V0.next()].into_iter().zip(found) {
            let content = found.content.unwrap();
            assert_eq!((content.form, content.claims), (Form::Safetensors, Some(Ok(version))));
        }
        shelf.quarantine(V0).unwrap();
        assert!(shelf.read(V0).is_err());
        assert!(names(dir.path()).contains(&"global_model_v0.safetensors.corrupt-1".to_owned()));
    }

    #[test]
    fn a_write_that_cannot_be_done_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path(), &ModelLine::default());
        shelf.write(V0, MODEL).unwrap();
        fs::create_dir(dir.path().join("global_model_v0.json.tmp")).unwrap();
        assert!(shelf.write(V0, b"other").is_err());
        assert_eq!(shelf.read(V0).unwrap().0, MODEL);
    }
}
