//! What can be done with a descriptor: streams, open files, open directories.

use super::{
    super::{
        super::wasm::stdio::Sink as _,
        files::Place,
        volume::Stat,
        world::{Descriptor, OpenFile},
    },
    BADF, Call, Done, INVAL, NOTDIR, NOTSUP, PERM, Stop, after, size,
};

const KIND_UNKNOWN: u8 = 0;
const KIND_DIR: u8 = 3;
const KIND_FILE: u8 = 4;

const APPEND: u32 = 1;
const SYNC_FLAGS: u32 = 2 | 8 | 16;

pub(super) const RIGHT_READ: u64 = 1 << 1;
const RIGHT_SEEK: u64 = 1 << 2;
pub(super) const RIGHT_WRITE: u64 = 1 << 6;
const RIGHT_READDIR: u64 = 1 << 14;
const RIGHT_PATH_SET_SIZE: u64 = 1 << 19;
const RIGHT_SET_SIZE: u64 = 1 << 22;
const RIGHTS_ALL: u64 = (1 << 30) - 1;
/// What is expected of a directory that is open from the start: everything on paths but setting a
/// size, listing, and attributes.
const RIGHTS_PREOPEN: u64 = 0x01ff << 9 | 1 << 18 | 1 << 20 | 1 << 21 | 7 << 23 | 1 << 26;
/// And of what is opened in it: everything on files, too.
const RIGHTS_INHERITED: u64 = RIGHTS_PREOPEN | 0x01ff | 7 << 21 | 1 << 27;

const DIRENT_BYTES: usize = 24;
const IOVEC_BYTES: usize = 8;
/// POSIX's limit is this, too.
const IOVECS_MAX: u32 = 1024;

impl Call<'_> {
    fn descriptor(&mut self, fd: u32) -> Result<&mut Descriptor, Stop> {
        self.world.descriptors.get_mut(&fd).ok_or(Stop::Errno(BADF))
    }

    fn file(&mut self, fd: u32) -> Result<&mut OpenFile, Stop> {
        match self.descriptor(fd)? {
            Descriptor::File(file) => Ok(file),
            Descriptor::Stdin
            | Descriptor::Stdout
            | Descriptor::Stderr
            | Descriptor::Dir { .. } => Err(Stop::Errno(BADF)),
        }
    }

    pub(super) fn dir(&mut self, fd: u32) -> Result<Place, Stop> {
        match self.descriptor(fd)? {
            Descriptor::Dir { place, .. } => Ok(*place),
            Descriptor::File(_) => Err(Stop::Errno(NOTDIR)),
            Descriptor::Stdin | Descriptor::Stdout | Descriptor::Stderr => Err(Stop::Errno(BADF)),
        }
    }

    fn place(&mut self, fd: u32) -> Result<Option<Place>, Stop> {
        match self.descriptor(fd)? {
            Descriptor::Dir { place, .. } => Ok(Some(*place)),
            Descriptor::File(file) => Ok(Some(file.place)),
            Descriptor::Stdin | Descriptor::Stdout | Descriptor::Stderr => Ok(None),
        }
    }

    pub(super) fn fd_advise(&mut self, fd: u32, _offset: u64, _len: u64, advice: u32) -> Done {
        self.file(fd)?;
        if advice > 5 { Err(Stop::unknown("Advice")) } else { Ok(()) }
    }

    pub(super) fn fd_allocate(&mut self, fd: u32, _offset: u64, _len: u64) -> Done {
        self.file(fd)?;
        Err(Stop::Errno(NOTSUP))
    }

    pub(super) fn fd_close(&mut self, fd: u32) -> Done {
        let place = self.place(fd)?;
        self.world.descriptors.remove(&fd);
        if let Some(place) = place {
            self.world.files.lock().close(place);
        }
        Ok(())
    }

    pub(super) fn fd_datasync(&mut self, fd: u32) -> Done {
        self.fd_sync(fd)
    }

    pub(super) fn fd_sync(&mut self, fd: u32) -> Done {
        self.place(fd)?.map(|_| ()).ok_or(Stop::Errno(BADF))
    }

    pub(super) fn fd_fdstat_get(&mut self, fd: u32, result: u32) -> Done {
        let (kind, flags, base, inheriting) = match self.descriptor(fd)? {
            Descriptor::Stdin => (KIND_UNKNOWN, 0, RIGHT_READ, RIGHT_READ),
            Descriptor::Stdout | Descriptor::Stderr => (KIND_UNKNOWN, 0, RIGHT_WRITE, RIGHT_WRITE),
            Descriptor::Dir { preopen: Some(_), .. } => {
                (KIND_DIR, 0, RIGHTS_PREOPEN, RIGHTS_INHERITED)
            }
            Descriptor::Dir { preopen: None, .. } => {
                let no = RIGHT_SEEK | RIGHT_SET_SIZE | RIGHT_PATH_SET_SIZE | RIGHT_WRITE;
                (KIND_DIR, 0, RIGHTS_ALL & !no, RIGHTS_ALL & !no)
            }
            Descriptor::File(file) => {
                let no_read = if file.read { 0 } else { RIGHT_READ | RIGHT_READDIR };
                let no_write = if file.write { 0 } else { RIGHT_WRITE };
                let rights = RIGHTS_ALL & !no_read & !no_write;
                (KIND_FILE, u16::from(file.append), rights, rights)
            }
        };
        self.put(result, &[0; 24])?;
        self.put(result, &[kind])?;
        self.put(after(result, 2), &flags.to_le_bytes())?;
        self.put_u64(after(result, 8), base)?;
        self.put_u64(after(result, 16), inheriting)
    }

    pub(super) fn fd_fdstat_set_flags(&mut self, fd: u32, flags: u32) -> Done {
        let file = self.file(fd)?;
        if flags & SYNC_FLAGS != 0 {
            return Err(Stop::Errno(INVAL));
        }
        file.append = flags & APPEND != 0;
        Ok(())
    }

    pub(super) fn fd_fdstat_set_rights(&mut self, fd: u32, _base: u64, _inheriting: u64) -> Done {
        self.descriptor(fd)?;
        Err(Stop::Errno(NOTSUP))
    }

    pub(super) fn fd_filestat_get(&mut self, fd: u32, result: u32) -> Done {
        match self.place(fd)? {
            Some(place) => self.put_stat(place, result),
            None => self.put(result, &[0; 64]),
        }
    }

    pub(super) fn put_stat(&mut self, place: Place, result: u32) -> Done {
        let stat = self.world.files.lock().stat(place)?;
        let Stat { is_dir, size, accessed_ns, modified_ns } = stat;
        let born_ns = self.world.clock.start_ns();
        let modified_ns = modified_ns.unwrap_or(born_ns);
        self.put(result, &[0; 64])?;
        self.put_u64(result, place.mount as u64 + 1)?;
        self.put_u64(after(result, 8), place.ino as u64 + 1)?;
        self.put(after(result, 16), &[kind(is_dir)])?;
        self.put_u64(after(result, 24), 1)?;
        self.put_u64(after(result, 32), size)?;
        self.put_u64(after(result, 40), accessed_ns.unwrap_or(born_ns))?;
        self.put_u64(after(result, 48), modified_ns)?;
        self.put_u64(after(result, 56), modified_ns)
    }

    pub(super) fn fd_filestat_set_size(&mut self, fd: u32, size: u64) -> Done {
        let file = *self.file(fd)?;
        if !file.write {
            return Err(Stop::Errno(PERM));
        }
        let now_ns = self.world.clock.wall_ns();
        Ok(self.world.files.lock().resize(file.place, size, now_ns)?)
    }

    pub(super) fn fd_filestat_set_times(
        &mut self,
        fd: u32,
        accessed: u64,
        modified: u64,
        flags: u32,
    ) -> Done {
        let place = self.place(fd)?.ok_or(Stop::Errno(BADF))?;
        self.set_times(place, accessed, modified, flags)
    }

    pub(super) fn fd_prestat_get(&mut self, fd: u32, result: u32) -> Done {
        let path = self.preopen(fd)?;
        self.put_u32(result, 0)?;
        self.put_u32(after(result, 4), size(path.len())?)
    }

    pub(super) fn fd_prestat_dir_name(&mut self, fd: u32, path: u32, len: u32) -> Done {
        let name = self.preopen(fd)?;
        if (len as usize) < name.len() {
            return Err(Stop::Errno(super::NAMETOOLONG));
        }
        self.put(path, name.as_bytes())
    }

    fn preopen(&mut self, fd: u32) -> Result<&'static str, Stop> {
        match self.descriptor(fd)? {
            Descriptor::Dir { preopen: Some(path), .. } => Ok(path),
            Descriptor::Dir { preopen: None, .. }
            | Descriptor::File(_)
            | Descriptor::Stdin
            | Descriptor::Stdout
            | Descriptor::Stderr => Err(Stop::Errno(BADF)),
        }
    }

    pub(super) fn fd_read(&mut self, fd: u32, list: u32, count: u32, result: u32) -> Done {
        match *self.descriptor(fd)? {
            Descriptor::Stdin => self.put_u32(result, 0),
            Descriptor::File(file) => {
                let read = self.read_at(file, file.position, list, count)?;
                self.file(fd)?.position = file.position.saturating_add(u64::from(read));
                self.put_u32(result, read)
            }
            Descriptor::Stdout | Descriptor::Stderr | Descriptor::Dir { .. } => {
                Err(Stop::Errno(BADF))
            }
        }
    }

    pub(super) fn fd_pread(
        &mut self,
        fd: u32,
        list: u32,
        count: u32,
        offset: u64,
        result: u32,
    ) -> Done {
        let file = *self.file(fd)?;
        let read = self.read_at(file, offset, list, count)?;
        self.put_u32(result, read)
    }

    fn read_at(&mut self, file: OpenFile, offset: u64, list: u32, count: u32) -> Result<u32, Stop> {
        if !file.read {
            return Err(Stop::Errno(PERM));
        }
        let mut read = 0;
        for index in 0..count.min(IOVECS_MAX) as usize {
            let (buffer, len) = self.iovec(list, index)?;
            let files = self.world.files.clone();
            let files = files.lock();
            let bytes = files.read(file.place, offset.saturating_add(read as u64))?;
            let len = bytes.len().min(len as usize).min(u32::MAX as usize - read);
            self.put(buffer, &bytes[..len])?;
            read += len;
        }
        self.world.moved(read);
        size(read)
    }

    pub(super) fn fd_write(&mut self, fd: u32, list: u32, count: u32, result: u32) -> Done {
        let written = match *self.descriptor(fd)? {
            Descriptor::Stdout => {
                let stdout = self.world.stdout.clone();
                self.gather(list, count, |_, bytes| Ok(stdout.lock().accept(bytes)?))?
            }
            Descriptor::Stderr => {
                let log = self.world.log.clone();
                self.gather(list, count, |_, bytes| Ok(log.lock().accept(bytes)?))?
            }
            Descriptor::File(file) => {
                let position = match file.append {
                    true => self.world.files.lock().stat(file.place)?.size,
                    false => file.position,
                };
                let written = self.write_at(file, position, list, count)?;
                self.file(fd)?.position = position.saturating_add(u64::from(written));
                written
            }
            Descriptor::Stdin | Descriptor::Dir { .. } => return Err(Stop::Errno(BADF)),
        };
        self.put_u32(result, written)
    }

    pub(super) fn fd_pwrite(
        &mut self,
        fd: u32,
        list: u32,
        count: u32,
        offset: u64,
        result: u32,
    ) -> Done {
        let file = *self.file(fd)?;
        let written = self.write_at(file, offset, list, count)?;
        self.put_u32(result, written)
    }

    fn write_at(
        &mut self,
        file: OpenFile,
        offset: u64,
        list: u32,
        count: u32,
    ) -> Result<u32, Stop> {
        if !file.write {
            return Err(Stop::Errno(BADF));
        }
        let now_ns = self.world.clock.wall_ns();
        let files = self.world.files.clone();
        self.gather(list, count, |written, bytes| {
            Ok(files.lock().write(file.place, offset.saturating_add(written), bytes, now_ns)?)
        })
    }

    /// Hands on each piece of a list, with how much came before it.
    fn gather(
        &mut self,
        list: u32,
        count: u32,
        mut take: impl FnMut(u64, &[u8]) -> Done,
    ) -> Result<u32, Stop> {
        let mut written = 0;
        for index in 0..count.min(IOVECS_MAX) as usize {
            let (buffer, len) = self.iovec(list, index)?;
            let len = (len as usize).min(u32::MAX as usize - written);
            take(written as u64, self.at(buffer, len)?)?;
            written += len;
        }
        self.world.moved(written);
        size(written)
    }

    fn iovec(&mut self, list: u32, index: usize) -> Result<(u32, u32), Stop> {
        let at = after(list, index * IOVEC_BYTES);
        Ok((self.u32(at)?, self.u32(after(at, 4))?))
    }

    pub(super) fn fd_readdir(
        &mut self,
        fd: u32,
        buffer: u32,
        len: u32,
        cookie: u64,
        result: u32,
    ) -> Done {
        let dir = self.dir(fd)?;
        let mut entries = vec![(".".to_owned(), dir.ino, true), ("..".to_owned(), dir.ino, true)];
        entries.extend(self.world.files.lock().entries(dir)?);
        self.world.moved(entries.len() * DIRENT_BYTES);
        let mut out = Vec::new();
        for ((name, ino, is_dir), next) in entries.into_iter().zip(1_u64..) {
            if next <= cookie {
                continue;
            }
            let mut entry = [0; DIRENT_BYTES];
            entry[..8].copy_from_slice(&next.to_le_bytes());
            entry[8..16].copy_from_slice(&(ino as u64 + 1).to_le_bytes());
            entry[16..20].copy_from_slice(&size(name.len())?.to_le_bytes());
            entry[20] = kind(is_dir);
            out.extend_from_slice(&entry);
            out.extend_from_slice(name.as_bytes());
            if out.len() >= len as usize {
                break;
            }
        }
        out.truncate(len as usize);
        self.put(buffer, &out)?;
        self.put_u32(result, size(out.len())?)
    }

    pub(super) fn fd_renumber(&mut self, from: u32, to: u32) -> Done {
        self.descriptor(to)?;
        let moved = *self.descriptor(from)?;
        if from != to {
            self.fd_close(to)?;
            self.world.descriptors.remove(&from);
            self.world.descriptors.insert(to, moved);
        }
        Ok(())
    }

    pub(super) fn fd_seek(&mut self, fd: u32, offset: i64, whence: u32, result: u32) -> Done {
        let file = match *self.descriptor(fd)? {
            Descriptor::File(file) => file,
            Descriptor::Dir { .. } => return Err(Stop::Errno(BADF)),
            Descriptor::Stdin | Descriptor::Stdout | Descriptor::Stderr => {
                return Err(Stop::Errno(super::SPIPE));
            }
        };
        let from = match whence {
            0 => 0,
            1 => file.position,
            2 => self.world.files.lock().stat(file.place)?.size,
            _ => return Err(Stop::unknown("Whence")),
        };
        let position = from.checked_add_signed(offset).ok_or(Stop::Errno(INVAL))?;
        self.file(fd)?.position = position;
        self.put_u64(result, position)
    }

    pub(super) fn fd_tell(&mut self, fd: u32, result: u32) -> Done {
        self.fd_seek(fd, 0, 1, result)
    }
}

fn kind(is_dir: bool) -> u8 {
    if is_dir { KIND_DIR } else { KIND_FILE }
}
