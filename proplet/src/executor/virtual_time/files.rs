//! The files that a guest sees, all in memory: its data, its model, and a place to write to.
//!
//! Nothing of the host shines through: the order of a directory is that of its names, times are
//! virtual, and there are no links (as on many a memory card).

use std::sync::Arc;

use bytes::Bytes;

use super::{
    super::{
        ENV_CONTROL_PATH, ENV_DATA_DIR, ENV_MODEL_PATH, ENV_STATE_OUT_PATH, ENV_STATE_PATH,
        ENV_UPDATE_PATH, Failure, OutputKind, Variates,
        sandbox::{CONTROL_FILE, ENTRIES_MAX, MODEL_FILE, STATE_FILE, UPDATE_FILE},
        wasm::guest::{GUEST_DATA, GUEST_MODEL, GUEST_OUT},
    },
    data::DataSet,
    volume::{Content, FileError, Ino, ROOT, Stat, Volume},
};

const NAME_BYTES_MAX: usize = 255;
const PATH_BYTES_MAX: usize = 4096;

/// A node of one of the volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) mount: usize,
    pub(super) ino: Ino,
}

#[derive(Debug)]
struct Mount {
    path: &'static str,
    volume: Arc<Volume>,
    writable: bool,
}

/// How a file is to be opened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    pub(super) create: bool,
    pub(super) exclusive: bool,
    pub(super) truncate: bool,
    pub(super) directory: bool,
    pub(super) write: bool,
}

/// All that a guest can reach.
#[derive(Debug)]
pub(super) struct Files {
    mounts: Vec<Mount>,
    variables: Vec<(&'static str, String)>,
    bytes_max: u64,
    over_quota: bool,
}

impl Files {
    /// In the order in which the live executor opens them, as a guest can see it.
    pub(super) fn new(
        data: Option<&DataSet>,
        (model, variates): (Option<&Bytes>, Option<&Variates>),
        bytes_max: u64,
    ) -> Self {
        let mut mounts = Vec::new();
        let state = variates.and_then(|variates| variates.state.as_ref());
        let given = [
            (MODEL_FILE, ENV_MODEL_PATH, model),
            (CONTROL_FILE, ENV_CONTROL_PATH, variates.map(|variates| &variates.control)),
            (STATE_FILE, ENV_STATE_PATH, state),
        ];
        if let Some(data) = data {
            mounts.push(Mount { path: GUEST_DATA, volume: data.volume(), writable: false });
        }
        let given = given.into_iter().filter_map(|(file, name, bytes)| Some((file, name, bytes?)));
        let mut variables = vec![];
        let mut volume = Volume::empty();
        for (file, name, bytes) in given {
            // A volume takes any plain name that is not there.
            let _ = volume.put(file, bytes.clone());
            variables.push((name, format!("{GUEST_MODEL}/{file}")));
        }
        if !variables.is_empty() {
            mounts.push(Mount { path: GUEST_MODEL, volume: Arc::new(volume), writable: false });
        }
        let volume = Arc::new(Volume::empty());
        mounts.push(Mount { path: GUEST_OUT, volume, writable: true });
        variables.push((ENV_UPDATE_PATH, format!("{GUEST_OUT}/{UPDATE_FILE}")));
        if variates.is_some() {
            variables.push((ENV_STATE_OUT_PATH, format!("{GUEST_OUT}/{STATE_FILE}")));
        }
        if data.is_some() {
            variables.insert(0, (ENV_DATA_DIR, GUEST_DATA.to_owned()));
        }
        Self { mounts, variables, bytes_max, over_quota: false }
    }

    /// What the environment says about them.
    pub(super) fn variables(&self) -> &[(&'static str, String)] {
        &self.variables
    }

    /// The directories that are open from the start, in order.
    pub(super) fn preopens(&self) -> impl Iterator<Item = (&'static str, Place)> {
        self.mounts.iter().enumerate().map(|(mount, it)| (it.path, Place { mount, ino: ROOT }))
    }

    /// The update, if the guest wrote one.
    pub(super) fn take_update(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        if self.over_quota {
            let limit_bytes = self.bytes_max;
            return Err(Failure::OutputTooLarge { kind: OutputKind::Files, limit_bytes });
        }
        self.take(UPDATE_FILE, Failure::UpdateNotAFile)
    }

    /// The state, if the guest had to leave one and did.
    pub(super) fn take_state(&mut self, bytes_max: u64) -> Result<Option<Vec<u8>>, Failure> {
        if !self.variables.iter().any(|(name, _)| *name == ENV_STATE_OUT_PATH) {
            return Ok(None);
        }
        let state = self.take(STATE_FILE, Failure::StateNotAFile)?;
        if state.as_ref().is_some_and(|state| state.len() as u64 > bytes_max) {
            let kind = OutputKind::State;
            return Err(Failure::OutputTooLarge { kind, limit_bytes: bytes_max });
        }
        Ok(state)
    }

    fn take(&mut self, file: &str, strange: Failure) -> Result<Option<Vec<u8>>, Failure> {
        let out = self.mounts.len() - 1;
        let volume = Arc::make_mut(&mut self.mounts[out].volume);
        match volume.entry(ROOT, file) {
            Ok(ino) => volume.take(ino).map(Some).map_err(|_| strange),
            Err(_) => Ok(None),
        }
    }

    /// Whether the guest wrote more than it may.
    pub(super) fn over_quota(&self) -> bool {
        self.over_quota
    }

    pub(super) fn open(
        &mut self,
        dir: Place,
        path: &str,
        how: How,
        now_ns: u64,
    ) -> Result<Place, FileError> {
        if how.create || how.truncate || how.exclusive || how.write {
            self.writable(dir)?;
        }
        let place = match self.find(dir, path) {
            Ok(_) if how.create && how.exclusive => return Err(FileError::Exists),
            Ok(place) => place,
            Err(FileError::NoEntry) if how.create && !how.directory => {
                self.create(dir, path, Content::Made(Vec::new()), now_ns)?
            }
            Err(error) => return Err(error),
        };
        let is_dir = self.volume(place).is_dir(place.ino);
        if how.directory && !is_dir {
            return Err(FileError::NotDirectory);
        }
        if is_dir && (how.write || how.truncate || how.create) {
            return Err(FileError::IsDirectory);
        }
        if how.truncate {
            self.resize(place, 0, now_ns)?;
        }
        self.hold(place);
        Ok(place)
    }

    pub(super) fn close(&mut self, place: Place) {
        if let Ok(volume) = self.volume_mut(place) {
            volume.close(place.ino);
        }
    }

    /// Keeps what lies there until it is closed once more, whatever becomes of its name.
    pub(super) fn hold(&mut self, place: Place) {
        if let Ok(volume) = self.volume_mut(place) {
            // What is held is there; only what can be removed has to be held.
            let _ = volume.open(place.ino);
        }
    }

    pub(super) fn is_writable(&self, place: Place) -> bool {
        self.mounts[place.mount].writable
    }

    pub(super) fn find(&self, dir: Place, path: &str) -> Result<Place, FileError> {
        let volume = self.volume(dir);
        let mut way = vec![dir.ino];
        for step in steps(path)? {
            let at = way.last().copied().unwrap_or(dir.ino);
            match step {
                // Out of the directory leads nowhere.
                ".." if way.len() == 1 => return Err(FileError::NotPermitted),
                ".." => drop(way.pop()),
                "." if volume.is_dir(at) => {}
                "." => return Err(FileError::NotDirectory),
                name => way.push(volume.entry(at, name)?),
            }
        }
        Ok(Place { mount: dir.mount, ino: way.last().copied().unwrap_or(dir.ino) })
    }

    pub(super) fn create_dir(
        &mut self,
        dir: Place,
        path: &str,
        now_ns: u64,
    ) -> Result<(), FileError> {
        self.writable(dir)?;
        let path = path.trim_end_matches('/');
        self.create(dir, path, Content::Dir(std::collections::BTreeMap::new()), now_ns).map(|_| ())
    }

    pub(super) fn remove_dir(&mut self, dir: Place, path: &str) -> Result<(), FileError> {
        self.writable(dir)?;
        let (parent, name) = self.parent(dir, path.trim_end_matches('/'))?;
        let volume = self.volume_mut(parent)?;
        let ino = volume.entry(parent.ino, name)?;
        if !volume.entries(ino)?.is_empty() {
            return Err(FileError::NotEmpty);
        }
        volume.unlink(parent.ino, name)
    }

    pub(super) fn unlink(&mut self, dir: Place, path: &str) -> Result<(), FileError> {
        self.writable(dir)?;
        let (parent, name) = self.parent(dir, path)?;
        let volume = self.volume_mut(parent)?;
        let ino = volume.entry(parent.ino, name)?;
        if volume.is_dir(ino) {
            return Err(FileError::IsDirectory);
        }
        volume.unlink(parent.ino, name)
    }

    pub(super) fn rename(
        &mut self,
        (from, old): (Place, &str),
        (to, new): (Place, &str),
    ) -> Result<(), FileError> {
        self.writable(from)?;
        self.writable(to)?;
        let (from, old) = self.parent(from, old.trim_end_matches('/'))?;
        let (to, new) = self.parent(to, new.trim_end_matches('/'))?;
        let volume = self.volume_mut(from)?;
        let moved = volume.entry(from.ino, old)?;
        if below(volume, moved, to.ino) {
            return Err(FileError::Invalid);
        }
        if let Ok(there) = volume.entry(to.ino, new) {
            if there == moved {
                return Ok(());
            }
            match (volume.is_dir(moved), volume.is_dir(there)) {
                (true, false) => return Err(FileError::NotDirectory),
                (false, true) => return Err(FileError::IsDirectory),
                (true, true) if !volume.entries(there)?.is_empty() => {
                    return Err(FileError::NotEmpty);
                }
                (true, true) | (false, false) => volume.unlink(to.ino, new)?,
            }
        }
        volume.relink((from.ino, old), (to.ino, new))
    }

    pub(super) fn stat(&self, place: Place) -> Result<Stat, FileError> {
        self.volume(place).stat(place.ino)
    }

    pub(super) fn set_times(
        &mut self,
        place: Place,
        accessed_ns: Option<u64>,
        modified_ns: Option<u64>,
    ) -> Result<(), FileError> {
        self.volume_mut(place)?.set_times(place.ino, accessed_ns, modified_ns)
    }

    /// Names, nodes and whether they are directories, in the order of the names.
    pub(super) fn entries(&self, dir: Place) -> Result<Vec<(String, Ino, bool)>, FileError> {
        let volume = self.volume(dir);
        let entries = volume.entries(dir.ino)?;
        Ok(entries.into_iter().map(|(name, ino)| (name, ino, volume.is_dir(ino))).collect())
    }

    /// What lies from the offset to the end of the file.
    pub(super) fn read(&self, file: Place, offset: u64) -> Result<&[u8], FileError> {
        let bytes = self.volume(file).read(file.ino)?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(&bytes[offset..])
    }

    pub(super) fn write(
        &mut self,
        file: Place,
        offset: u64,
        bytes: &[u8],
        now_ns: u64,
    ) -> Result<(), FileError> {
        let bytes_max = self.bytes_max;
        let written = self.volume_mut(file)?.write(file.ino, offset, bytes, (now_ns, bytes_max));
        self.watch(written)
    }

    pub(super) fn resize(&mut self, file: Place, size: u64, now_ns: u64) -> Result<(), FileError> {
        let bytes_max = self.bytes_max;
        let resized = self.volume_mut(file)?.resize(file.ino, size, (now_ns, bytes_max));
        self.watch(resized)
    }

    fn create(
        &mut self,
        dir: Place,
        path: &str,
        content: Content,
        now_ns: u64,
    ) -> Result<Place, FileError> {
        let (parent, name) = self.parent(dir, path)?;
        let volume = self.volume_mut(parent)?;
        let full = volume.len() >= ENTRIES_MAX;
        let ino = volume.insert(parent.ino, name, content, Some(now_ns))?;
        self.watch(if full { Err(FileError::Quota) } else { Ok(()) })?;
        Ok(Place { mount: parent.mount, ino })
    }

    /// The directory in which the last name of a path lies, and that name.
    fn parent<'p>(&self, dir: Place, path: &'p str) -> Result<(Place, &'p str), FileError> {
        let _names = steps(path)?;
        let (way, name) = path.rsplit_once('/').unwrap_or((".", path));
        if name == "." || name == ".." || name.is_empty() {
            return Err(FileError::Invalid);
        }
        let parent = self.find(dir, way)?;
        if !self.volume(parent).is_dir(parent.ino) {
            return Err(FileError::NotDirectory);
        }
        Ok((parent, name))
    }

    fn watch<T>(&mut self, done: Result<T, FileError>) -> Result<T, FileError> {
        self.over_quota |= matches!(done, Err(FileError::Quota));
        done
    }

    fn writable(&self, place: Place) -> Result<(), FileError> {
        if self.is_writable(place) { Ok(()) } else { Err(FileError::NotPermitted) }
    }

    fn volume(&self, place: Place) -> &Volume {
        &self.mounts[place.mount].volume
    }

    fn volume_mut(&mut self, place: Place) -> Result<&mut Volume, FileError> {
        self.writable(place)?;
        // Nobody else holds this one, so it is not copied.
        Ok(Arc::make_mut(&mut self.mounts[place.mount].volume))
    }
}

/// The names on a path; a slash at its end asks for a directory, as a dot does.
fn steps(path: &str) -> Result<impl Iterator<Item = &str>, FileError> {
    if path.is_empty() {
        return Err(FileError::NoEntry);
    }
    if path.starts_with('/') {
        return Err(FileError::NotPermitted);
    }
    if path.contains('\0') {
        return Err(FileError::Invalid);
    }
    if path.len() > PATH_BYTES_MAX || path.split('/').any(|name| name.len() > NAME_BYTES_MAX) {
        return Err(FileError::NameTooLong);
    }
    Ok(path.split('/').map(|name| if name.is_empty() { "." } else { name }))
}

/// Whether `place` is `dir` or lies in it.
fn below(volume: &Volume, dir: Ino, place: Ino) -> bool {
    let mut open = vec![dir];
    while let Some(at) = open.pop() {
        if at == place {
            return true;
        }
        let inside = volume.entries(at).unwrap_or_default();
        open.extend(inside.into_iter().map(|(_, ino)| ino));
    }
    false
}
