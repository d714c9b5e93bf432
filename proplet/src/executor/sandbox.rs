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
    ENV_CONTROL_PATH, ENV_MODEL_PATH, ENV_STATE_OUT_PATH, ENV_STATE_PATH, ENV_UPDATE_PATH, Model,
    Output, Variates,
    failure::{Failure, OutputKind},
};

/// Files and directories a guest may have at once; small, because it needs one.
pub(super) const ENTRIES_MAX: usize = 64;
pub(super) const MODEL_FILE: &str = "base";
pub(super) const UPDATE_FILE: &str = "update";
/// Beside the model, and a state that is left beside the update.
pub(super) const CONTROL_FILE: &str = "control";
pub(super) const STATE_FILE: &str = "state";
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
    /// Whether there are variates, and a state among them.
    has_control: bool,
    has_state: bool,
}

impl Sandbox {
    /// Makes the directories below `scratch_dir` and puts the model in its place, and what stands
    /// beside it.
    pub(super) fn stage(
        scratch_dir: &Path,
        model: Option<&Model>,
        variates: Option<&Variates>,
    ) -> Result<Self, Failure> {
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
        let sandbox = Self {
            root,
            left,
            has_model: model.is_some(),
            has_control: variates.is_some(),
            has_state: variates.is_some_and(|variates| variates.state.is_some()),
        };
        sandbox.fill(model, variates).map_err(|error| {
            Failure::host(&format!("make the directory {}", sandbox.root.display()), error)
        })?;
        Ok(sandbox)
    }

    fn fill(&self, model: Option<&Model>, variates: Option<&Variates>) -> io::Result<()> {
        fs::create_dir_all(self.root.join("out"))?;
        if model.is_none() && variates.is_none() {
            return Ok(());
        }
        fs::create_dir(self.root.join("model"))?;
        if let Some(Variates { control, state }) = variates {
            fs::write(self.root.join("model").join(CONTROL_FILE), control)?;
            if let Some(state) = state {
                fs::write(self.root.join("model").join(STATE_FILE), state)?;
            }
        }
        let Some(model) = model else { return Ok(()) };
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

    /// The host's directory with what the guest may read beside its data, if there is any.
    pub(super) fn given(&self) -> Option<PathBuf> {
        (self.has_model || self.has_control).then(|| self.root.join("model"))
    }

    /// The names in it, by the environment variables that tell them.
    pub(super) fn given_files(&self) -> Vec<(&'static str, &'static str)> {
        let files = [
            (self.has_model, ENV_MODEL_PATH, MODEL_FILE),
            (self.has_control, ENV_CONTROL_PATH, CONTROL_FILE),
            (self.has_state, ENV_STATE_PATH, STATE_FILE),
        ];
        files.into_iter().filter(|(has, ..)| *has).map(|(_, name, file)| (name, file)).collect()
    }

    /// What the guest may write in the directory for that, by the variables that tell it.
    pub(super) fn out_files(&self) -> Vec<(&'static str, &'static str)> {
        let state = self.has_control.then_some((ENV_STATE_OUT_PATH, STATE_FILE));
        [(ENV_UPDATE_PATH, UPDATE_FILE)].into_iter().chain(state).collect()
    }

    /// The host's directory in which the guest may write.
    pub(super) fn out(&self) -> PathBuf {
        self.root.join("out")
    }

    /// Fails if the guest has written more than `bytes_max`. Symbolic links are not followed.
    pub(super) fn check_quota(&self, bytes_max: u64) -> Result<(), Failure> {
        let over = Failure::OutputTooLarge { kind: OutputKind::Files, limit_bytes: bytes_max };
        let mut open = vec![self.out()];
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
        let path = self.out().join(UPDATE_FILE);
        let len = left_len(&path, Failure::UpdateNotAFile)?;
        let Some(len) = len else { return Ok(Output::default()) };
        if len > bytes_max {
            return Err(Failure::OutputTooLarge {
                kind: OutputKind::Files,
                limit_bytes: bytes_max,
            });
        }
        if len > inline_max {
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

    /// The state, if the guest had to leave one and did. Call it when the guest has ended.
    pub(super) fn take_state(&self, bytes_max: u64) -> Result<Option<Vec<u8>>, Failure> {
        if !self.has_control {
            return Ok(None);
        }
        let path = self.out().join(STATE_FILE);
        let Some(len) = left_len(&path, Failure::StateNotAFile)? else { return Ok(None) };
        if len > bytes_max {
            let kind = OutputKind::State;
            return Err(Failure::OutputTooLarge { kind, limit_bytes: bytes_max });
        }
        fs::read(&path).map(Some).map_err(|error| Failure::host("read the state", error))
    }
}

/// How long the file is that a guest has left, if it has; `strange` says what else it can be.
fn left_len(path: &Path, strange: Failure) -> Result<Option<u64>, Failure> {
    // Not followed: a guest can make a link that leads out of its sandbox.
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => Ok(Some(meta.len())),
        Ok(_) => Err(strange),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::host("look for what the guest left", error)),
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
