//! The files of preview 2, over the guest's own [`Files`].
//!
//! The interface names the host's types; under their handles lie ours.

use wasmtime::component::Resource;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, FsError, FsResult,
    bindings::filesystem::{
        preopens,
        types::{
            Advice, Descriptor, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry,
            DirectoryEntryStream, ErrorCode, Host as TypesHost, HostDescriptor,
            HostDirectoryEntryStream, MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
        },
    },
};

use super::{
    super::{
        files::{How, Place},
        volume::FileError,
    },
    streams::{Reader, piece},
    view::{Listing, Open, View, failed, hash, kind},
};

impl preopens::Host for View<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let preopens: Vec<_> = self.files.lock().preopens().collect();
        let mut all = Vec::new();
        for (path, place) in preopens {
            let open = Open { place, is_dir: true, read: true, write: false };
            all.push((self.push(open)?, path.to_owned()));
        }
        Ok(all)
    }
}

impl TypesHost for View<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        let error = self.table.get(&error)?;
        Ok(error.downcast_ref::<FileError>().map(|error| (*error).into()))
    }
}

impl HostDescriptor for View<'_> {
    async fn advise(
        &mut self,
        fd: Resource<Descriptor>,
        _offset: u64,
        _len: u64,
        _advice: Advice,
    ) -> FsResult<()> {
        self.file(&fd).map(|_| ())
    }

    async fn sync_data(&mut self, fd: Resource<Descriptor>) -> FsResult<()> {
        self.open(&fd).map(|_| ())
    }

    async fn sync(&mut self, fd: Resource<Descriptor>) -> FsResult<()> {
        self.open(&fd).map(|_| ())
    }

    async fn get_flags(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorFlags> {
        let open = self.open(&fd)?;
        let mut flags = DescriptorFlags::empty();
        if open.read {
            flags |= DescriptorFlags::READ;
        }
        if open.write {
            flags |= DescriptorFlags::WRITE;
        }
        if open.is_dir && self.files.lock().is_writable(open.place) {
            flags |= DescriptorFlags::MUTATE_DIRECTORY;
        }
        Ok(flags)
    }

    async fn get_type(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorType> {
        Ok(kind(self.open(&fd)?.is_dir))
    }

    async fn set_size(&mut self, fd: Resource<Descriptor>, size: u64) -> FsResult<()> {
        let place = self.writable(&fd)?;
        self.files.lock().resize(place, size, self.time.wall_ns()).map_err(failed)
    }

    async fn set_times(
        &mut self,
        fd: Resource<Descriptor>,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let place = self.open(&fd)?.place;
        self.set_times_of(place, accessed, modified)
    }

    async fn set_times_at(
        &mut self,
        fd: Resource<Descriptor>,
        _flags: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let place = self.found(&fd, &path)?;
        self.set_times_of(place, accessed, modified)
    }

    async fn read(
        &mut self,
        fd: Resource<Descriptor>,
        len: u64,
        offset: u64,
    ) -> FsResult<(Vec<u8>, bool)> {
        let open = self.file(&fd)?;
        if !open.read {
            return Err(ErrorCode::NotPermitted.into());
        }
        let bytes = piece(self.files, open.place, offset, len).map_err(failed)?;
        let at_end = bytes.is_empty();
        Ok((bytes.to_vec(), at_end))
    }

    async fn write(
        &mut self,
        fd: Resource<Descriptor>,
        bytes: Vec<u8>,
        offset: u64,
    ) -> FsResult<u64> {
        let place = self.writable(&fd)?;
        let now_ns = self.time.wall_ns();
        self.files.lock().write(place, offset, &bytes, now_ns).map_err(failed)?;
        Ok(bytes.len() as u64)
    }

    fn read_via_stream(
        &mut self,
        fd: Resource<Descriptor>,
        position: u64,
    ) -> FsResult<Resource<DynInputStream>> {
        let Open { place, is_dir, read, .. } = self.open(&fd)?;
        if is_dir || !read {
            let error = if is_dir { ErrorCode::IsDirectory } else { ErrorCode::NotPermitted };
            return Err(error.into());
        }
        let stream: DynInputStream = Box::new(Reader::new(self.files, place, position));
        Ok(self.table.push(stream)?)
    }

    fn write_via_stream(
        &mut self,
        fd: Resource<Descriptor>,
        position: u64,
    ) -> FsResult<Resource<DynOutputStream>> {
        self.writer(&fd, Some(position))
    }

    fn append_via_stream(
        &mut self,
        fd: Resource<Descriptor>,
    ) -> FsResult<Resource<DynOutputStream>> {
        self.writer(&fd, None)
    }

    async fn read_directory(
        &mut self,
        fd: Resource<Descriptor>,
    ) -> FsResult<Resource<DirectoryEntryStream>> {
        let dir = self.dir(&fd)?;
        let entries = self.files.lock().entries(dir).map_err(failed)?;
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(name, _, is_dir)| DirectoryEntry { type_: kind(is_dir), name })
            .collect();
        Ok(Resource::new_own(self.table.push(Listing(entries.into_iter()))?.rep()))
    }

    async fn create_directory_at(
        &mut self,
        fd: Resource<Descriptor>,
        path: String,
    ) -> FsResult<()> {
        let dir = self.dir(&fd)?;
        self.files.lock().create_dir(dir, &path, self.time.wall_ns()).map_err(failed)
    }

    async fn stat(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorStat> {
        self.stat_of(self.open(&fd)?.place)
    }

    async fn stat_at(
        &mut self,
        fd: Resource<Descriptor>,
        _flags: PathFlags,
        path: String,
    ) -> FsResult<DescriptorStat> {
        self.stat_of(self.found(&fd, &path)?)
    }

    async fn link_at(
        &mut self,
        fd: Resource<Descriptor>,
        _flags: PathFlags,
        path: String,
        to: Resource<Descriptor>,
        _new: String,
    ) -> FsResult<()> {
        self.dir(&to)?;
        self.found(&fd, &path)?;
        Err(ErrorCode::Unsupported.into())
    }

    async fn open_at(
        &mut self,
        fd: Resource<Descriptor>,
        _flags: PathFlags,
        path: String,
        how: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let dir = self.dir(&fd)?;
        let write = flags.contains(DescriptorFlags::WRITE);
        let how = How {
            create: how.contains(OpenFlags::CREATE),
            directory: how.contains(OpenFlags::DIRECTORY),
            exclusive: how.contains(OpenFlags::EXCLUSIVE),
            truncate: how.contains(OpenFlags::TRUNCATE),
            write,
        };
        let place = self.files.lock().open(dir, &path, how, self.time.wall_ns()).map_err(failed)?;
        let is_dir = self.files.lock().stat(place).map_err(failed)?.is_dir;
        let read = !write || flags.contains(DescriptorFlags::READ);
        self.push(Open { place, is_dir, read, write }).map_err(FsError::trap)
    }

    async fn readlink_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<String> {
        self.found(&fd, &path)?;
        Err(ErrorCode::Invalid.into())
    }

    async fn remove_directory_at(
        &mut self,
        fd: Resource<Descriptor>,
        path: String,
    ) -> FsResult<()> {
        let dir = self.dir(&fd)?;
        self.files.lock().remove_dir(dir, &path).map_err(failed)
    }

    async fn rename_at(
        &mut self,
        fd: Resource<Descriptor>,
        old: String,
        to: Resource<Descriptor>,
        new: String,
    ) -> FsResult<()> {
        let (from, to) = (self.dir(&fd)?, self.dir(&to)?);
        self.files.lock().rename((from, &old), (to, &new)).map_err(failed)
    }

    async fn symlink_at(
        &mut self,
        fd: Resource<Descriptor>,
        target: String,
        _path: String,
    ) -> FsResult<()> {
        self.dir(&fd)?;
        let leads_out = target.starts_with('/');
        Err(if leads_out { ErrorCode::NotPermitted } else { ErrorCode::Unsupported }.into())
    }

    async fn unlink_file_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        let dir = self.dir(&fd)?;
        self.files.lock().unlink(dir, &path).map_err(failed)
    }

    async fn is_same_object(
        &mut self,
        a: Resource<Descriptor>,
        b: Resource<Descriptor>,
    ) -> wasmtime::Result<bool> {
        let place = |fd: &Resource<Descriptor>| -> wasmtime::Result<Place> {
            Ok(self.table.get(&Resource::<Open>::new_borrow(fd.rep()))?.place)
        };
        Ok(place(&a)? == place(&b)?)
    }

    async fn metadata_hash(&mut self, fd: Resource<Descriptor>) -> FsResult<MetadataHashValue> {
        Ok(hash(self.open(&fd)?.place))
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Resource<Descriptor>,
        _flags: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        Ok(hash(self.found(&fd, &path)?))
    }

    fn drop(&mut self, fd: Resource<Descriptor>) -> wasmtime::Result<()> {
        let open = self.table.delete(Resource::<Open>::new_own(fd.rep()))?;
        self.files.lock().close(open.place);
        Ok(())
    }
}

impl HostDirectoryEntryStream for View<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        let listing = Resource::<Listing>::new_borrow(stream.rep());
        Ok(self.table.get_mut(&listing)?.0.next())
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Listing>::new_own(stream.rep()))?;
        Ok(())
    }
}
