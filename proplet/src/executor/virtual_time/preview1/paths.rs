//! What can be done with a path below an open directory.

use super::{
    super::{
        files::{How, Place},
        world::{Descriptor, OpenFile},
    },
    Call, Done, INVAL, MFILE, NOENT, NOTSUP, PERM, Stop,
    descriptors::{RIGHT_READ, RIGHT_WRITE},
};

const CREATE: u32 = 1;
const DIRECTORY: u32 = 2;
const EXCLUSIVE: u32 = 4;
const TRUNCATE: u32 = 8;

const APPEND: u32 = 1;

const ACCESSED: u32 = 1;
const ACCESSED_NOW: u32 = 2;
const MODIFIED: u32 = 4;
const MODIFIED_NOW: u32 = 8;

/// As many as a process usually may have.
const DESCRIPTORS_MAX: usize = 1024;

impl Call<'_> {
    pub(super) fn path_open(
        &mut self,
        fd: u32,
        _lookup: u32,
        path: u32,
        len: u32,
        how: u32,
        base: u64,
        _inheriting: u64,
        flags: u32,
        result: u32,
    ) -> Done {
        let path = self.text(path, len)?;
        let dir = self.dir(fd)?;
        let write = base & RIGHT_WRITE != 0;
        let how = How {
            create: how & CREATE != 0,
            directory: how & DIRECTORY != 0,
            exclusive: how & EXCLUSIVE != 0,
            truncate: how & TRUNCATE != 0,
            write,
        };
        let free = (0..DESCRIPTORS_MAX as u32)
            .find(|fd| !self.world.descriptors.contains_key(fd))
            .ok_or(Stop::Errno(MFILE))?;
        let now_ns = self.world.clock.wall_ns();
        let files = self.world.files.clone();
        let mut files = files.lock();
        let place = files.open(dir, &path, how, now_ns)?;
        let opened = if files.stat(place)?.is_dir {
            Descriptor::Dir { place, preopen: None }
        } else {
            // As live: what is not opened to be written can be read.
            let (append, read) = (flags & APPEND != 0, !write || base & RIGHT_READ != 0);
            Descriptor::File(OpenFile { place, position: 0, append, read, write })
        };
        self.world.descriptors.insert(free, opened);
        self.put_u32(result, free)
    }

    pub(super) fn path_create_directory(&mut self, fd: u32, path: u32, len: u32) -> Done {
        let (dir, path) = (self.dir(fd)?, self.text(path, len)?);
        let now_ns = self.world.clock.wall_ns();
        Ok(self.world.files.lock().create_dir(dir, &path, now_ns)?)
    }

    pub(super) fn path_remove_directory(&mut self, fd: u32, path: u32, len: u32) -> Done {
        let (dir, path) = (self.dir(fd)?, self.text(path, len)?);
        Ok(self.world.files.lock().remove_dir(dir, &path)?)
    }

    pub(super) fn path_unlink_file(&mut self, fd: u32, path: u32, len: u32) -> Done {
        let (dir, path) = (self.dir(fd)?, self.text(path, len)?);
        Ok(self.world.files.lock().unlink(dir, &path)?)
    }

    pub(super) fn path_rename(
        &mut self,
        fd: u32,
        path: u32,
        len: u32,
        to: u32,
        new: u32,
        new_len: u32,
    ) -> Done {
        let (from, old) = (self.dir(fd)?, self.text(path, len)?);
        let (to, new) = (self.dir(to)?, self.text(new, new_len)?);
        Ok(self.world.files.lock().rename((from, &old), (to, &new))?)
    }

    pub(super) fn path_filestat_get(
        &mut self,
        fd: u32,
        _flags: u32,
        path: u32,
        len: u32,
        result: u32,
    ) -> Done {
        let place = self.found(fd, path, len)?;
        self.put_stat(place, result)
    }

    pub(super) fn path_filestat_set_times(
        &mut self,
        fd: u32,
        _lookup: u32,
        path: u32,
        len: u32,
        accessed: u64,
        modified: u64,
        flags: u32,
    ) -> Done {
        let place = self.found(fd, path, len)?;
        self.set_times(place, accessed, modified, flags)
    }

    pub(super) fn set_times(
        &mut self,
        place: Place,
        accessed: u64,
        modified: u64,
        flags: u32,
    ) -> Done {
        let now_ns = self.world.clock.wall_ns();
        let chosen = |given: u32, now: u32, value: u64| match (flags & given, flags & now) {
            (0, 0) => Ok(None),
            (0, _) => Ok(Some(now_ns)),
            (_, 0) => Ok(Some(value)),
            _ => Err(Stop::Errno(INVAL)),
        };
        let accessed = chosen(ACCESSED, ACCESSED_NOW, accessed)?;
        let modified = chosen(MODIFIED, MODIFIED_NOW, modified)?;
        Ok(self.world.files.lock().set_times(place, accessed, modified)?)
    }

    /// There are no links, so none can be read.
    pub(super) fn path_readlink(
        &mut self,
        fd: u32,
        path: u32,
        len: u32,
        _buffer: u32,
        _buffer_len: u32,
        _result: u32,
    ) -> Done {
        self.found(fd, path, len)?;
        Err(Stop::Errno(INVAL))
    }

    pub(super) fn path_link(
        &mut self,
        fd: u32,
        _flags: u32,
        path: u32,
        len: u32,
        to: u32,
        _new: u32,
        _new_len: u32,
    ) -> Done {
        self.dir(to)?;
        self.found(fd, path, len)?;
        Err(Stop::Errno(NOTSUP))
    }

    pub(super) fn path_symlink(
        &mut self,
        old: u32,
        old_len: u32,
        fd: u32,
        path: u32,
        len: u32,
    ) -> Done {
        let target = self.text(old, old_len)?;
        let (_, path) = (self.dir(fd)?, self.text(path, len)?);
        Err(Stop::Errno(match (target.starts_with('/'), path.is_empty()) {
            (_, true) => NOENT,
            (true, false) => PERM,
            (false, false) => NOTSUP,
        }))
    }

    fn found(&mut self, fd: u32, path: u32, len: u32) -> Result<Place, Stop> {
        let (dir, path) = (self.dir(fd)?, self.text(path, len)?);
        Ok(self.world.files.lock().find(dir, &path)?)
    }
}
