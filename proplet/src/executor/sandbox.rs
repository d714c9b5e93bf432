//! The directories a guest is given for one run, and what may be left in them.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    Model, Output,
    failure::{Failure, OutputKind},
};

/// Files and directories a guest may have at once; small, because it needs one.
pub(super) const ENTRIES_MAX: usize = 64;
pub(super) const MODEL_FILE: &str = "base";
pub(super) const UPDATE_FILE: &str = "update";
/// How the directory of a run, and a file that was left behind there, are named.
const RUN: &str = "run-";
const LEFT: &str = "update-";

/// A file that a guest has left behind; removed when dropped, unless it was moved elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub struct LeftFile(PathBuf);

impl LeftFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LeftFile {
    fn drop(&mut self) {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %self.0.display(), %error, "an update stays behind");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// A directory of its own for one run; removed when dropped.
#[derive(Debug)]
pub(super) struct Sandbox {
    root: PathBuf,
    /// Where a file goes that is left behind.
    left: PathBuf,
    has_model: bool,
}

impl Sandbox {
    /// Makes the directories below `scratch_dir` and puts the model in its place.
    pub(super) fn stage(scratch_dir: &Path, model: Option<&Model>) -> Result<Self, Failure> {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let root = scratch_dir.join(format!("{RUN}{}-{run}", process::id()));
        let left = scratch_dir.join(format!("{LEFT}{}-{run}", process::id()));
        // An earlier process with our id may have died here.
        match fs::remove_dir_all(&root) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::host("clear the scratch directory", error)),
        }
        let sandbox = Self { root, left, has_model: model.is_some() };
        sandbox.fill(model).map_err(|error| {
            Failure::host(&format!("make the directory {}", sandbox.root.display()), error)
        })?;
        Ok(sandbox)
    }

    fn fill(&self, model: Option<&Model>) -> io::Result<()> {
        fs::create_dir_all(self.root.join("out"))?;
        let Some(model) = model else { return Ok(()) };
        fs::create_dir(self.root.join("model"))?;
        let place = self.root.join("model").join(MODEL_FILE);
        match model {
            Model::Bytes(bytes) => fs::write(place, bytes),
            // The guest can only read what is in this directory, so one file serves all.
            Model::File(path) => match fs::hard_link(path, &place) {
                Ok(()) => Ok(()),
                Err(_) => fs::copy(path, &place).map(drop),
            },
        }
    }

    /// The host's directory with the model, and the model's name in it.
    pub(super) fn model(&self) -> Option<(PathBuf, &'static str)> {
        self.has_model.then(|| (self.root.join("model"), MODEL_FILE))
    }

    /// The host's directory in which the guest may write, and the update's name in it.
    pub(super) fn out(&self) -> (PathBuf, &'static str) {
        (self.root.join("out"), UPDATE_FILE)
    }

    /// Fails if the guest has written more than `bytes_max`. Symbolic links are not followed.
    pub(super) fn check_quota(&self, bytes_max: u64) -> Result<(), Failure> {
        let over = Failure::OutputTooLarge { kind: OutputKind::Files, limit_bytes: bytes_max };
        let mut open = vec![self.root.join("out")];
        let (mut entries, mut bytes) = (0, 0_u64);
        while let Some(dir) = open.pop() {
            // The guest may remove what we are about to look at: that is less, not more.
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let Ok(meta) = entry.metadata() else { continue };
                entries += 1;
                if meta.is_dir() {
                    open.push(entry.path());
                } else {
                    bytes = bytes.saturating_add(meta.len());
                }
                if bytes > bytes_max || entries > ENTRIES_MAX {
                    return Err(over);
                }
            }
        }
        Ok(())
    }

    /// The update, if the guest wrote one: its bytes, or a file if they are more than `inline_max`.
    /// Call it when the guest has ended.
    pub(super) fn take_update(&self, bytes_max: u64, inline_max: u64) -> Result<Output, Failure> {
        let (dir, name) = self.out();
        let path = dir.join(name);
        // Not followed: a guest can make a link that leads out of its sandbox.
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Output::default()),
            Err(error) => return Err(Failure::host("look for the update", error)),
        };
        if !meta.is_file() {
            return Err(Failure::UpdateNotAFile);
        }
        if meta.len() > bytes_max {
            return Err(Failure::OutputTooLarge {
                kind: OutputKind::Files,
                limit_bytes: bytes_max,
            });
        }
        if meta.len() > inline_max {
            fs::rename(&path, &self.left)
                .map_err(|error| Failure::host("take the update", error))?;
            let update_left = Some(Arc::new(LeftFile(self.left.clone())));
            return Ok(Output { update_left, ..Output::default() });
        }
        let mut bytes = Vec::new();
        fs::File::open(&path)
            .and_then(|file| file.take(bytes_max).read_to_end(&mut bytes))
            .map_err(|error| Failure::host("read the update", error))?;
        Ok(Output { update_file: Some(bytes), ..Output::default() })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.root) {
            tracing::warn!(dir = %self.root.display(), %error, "a run's directory stays behind");
        }
    }
}

/// Removes what earlier processes left in `scratch_dir` when they were killed.
pub(super) fn clear(scratch_dir: &Path) {
    let ours = format!("{RUN}{}-", process::id());
    for entry in fs::read_dir(scratch_dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(LEFT) {
            drop(LeftFile(entry.path()));
        }
        if name.starts_with(RUN)
            && !name.starts_with(&ours)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(dir = %entry.path().display(), %error, "an old run's directory stays");
        }
    }
}
