//! The parts of a run's state that have to do with files, and what lies under the handles.

use std::sync::Arc;

use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::p2::{
    DynOutputStream, FsError, FsResult,
    bindings::{
        clocks::wall_clock::Datetime,
        filesystem::types::{
            Descriptor, DescriptorStat, DescriptorType, DirectoryEntry, ErrorCode,
            MetadataHashValue, NewTimestamp,
        },
    },
};

use super::{
    super::{
        super::wasm::stdio::Shared,
        files::{Files, Place},
        volume::FileError,
    },
    Host, NS_PER_S, Time, datetime,
    streams::Writer,
};

/// Ties the interface to our view of the state.
pub(super) struct Virtual;

impl HasData for Virtual {
    type Data<'a> = View<'a>;
}

/// The parts of the state that have to do with files.
pub(super) struct View<'a> {
    pub(super) files: &'a Shared<Files>,
    pub(super) table: &'a mut ResourceTable,
    pub(super) time: &'a Arc<Time>,
}

pub(super) fn view(host: &mut Host) -> View<'_> {
    View { files: &host.world.files, table: &mut host.table, time: &host.time }
}

/// What lies under the handle of a descriptor.
#[derive(Clone, Copy)]
pub(super) struct Open {
    pub(super) place: Place,
    pub(super) is_dir: bool,
    pub(super) read: bool,
    pub(super) write: bool,
}

/// What lies under the handle of a stream of entries.
pub(super) struct Listing(pub(super) std::vec::IntoIter<DirectoryEntry>);

impl From<FileError> for ErrorCode {
    fn from(error: FileError) -> Self {
        match error {
            FileError::BadDescriptor => Self::BadDescriptor,
            FileError::Exists => Self::Exist,
            FileError::Invalid => Self::Invalid,
            FileError::IsDirectory => Self::IsDirectory,
            FileError::NameTooLong => Self::NameTooLong,
            FileError::NoEntry => Self::NoEntry,
            FileError::NotDirectory => Self::NotDirectory,
            FileError::NotEmpty => Self::NotEmpty,
            FileError::NotPermitted => Self::NotPermitted,
            FileError::Quota => Self::InsufficientSpace,
        }
    }
}

pub(super) fn failed(error: FileError) -> FsError {
    match error {
        FileError::Quota => FsError::trap(error),
        FileError::BadDescriptor
        | FileError::Exists
        | FileError::Invalid
        | FileError::IsDirectory
        | FileError::NameTooLong
        | FileError::NoEntry
        | FileError::NotDirectory
        | FileError::NotEmpty
        | FileError::NotPermitted => ErrorCode::from(error).into(),
    }
}

pub(super) fn kind(is_dir: bool) -> DescriptorType {
    if is_dir { DescriptorType::Directory } else { DescriptorType::RegularFile }
}

pub(super) fn hash(place: Place) -> MetadataHashValue {
    MetadataHashValue { lower: place.ino as u64 + 1, upper: place.mount as u64 + 1 }
}

impl View<'_> {
    pub(super) fn open(&self, fd: &Resource<Descriptor>) -> FsResult<Open> {
        Ok(*self.table.get(&Resource::<Open>::new_borrow(fd.rep()))?)
    }

    pub(super) fn file(&self, fd: &Resource<Descriptor>) -> FsResult<Open> {
        let open = self.open(fd)?;
        if open.is_dir { Err(ErrorCode::BadDescriptor.into()) } else { Ok(open) }
    }

    pub(super) fn writable(&self, fd: &Resource<Descriptor>) -> FsResult<Place> {
        let open = self.file(fd)?;
        if open.write { Ok(open.place) } else { Err(ErrorCode::NotPermitted.into()) }
    }

    pub(super) fn dir(&self, fd: &Resource<Descriptor>) -> FsResult<Place> {
        let open = self.open(fd)?;
        if open.is_dir { Ok(open.place) } else { Err(ErrorCode::NotDirectory.into()) }
    }

    pub(super) fn found(&self, fd: &Resource<Descriptor>, path: &str) -> FsResult<Place> {
        let dir = self.dir(fd)?;
        self.files.lock().find(dir, path).map_err(failed)
    }

    pub(super) fn push(&mut self, open: Open) -> wasmtime::Result<Resource<Descriptor>> {
        Ok(Resource::new_own(self.table.push(open)?.rep()))
    }

    pub(super) fn stat_of(&self, place: Place) -> FsResult<DescriptorStat> {
        let stat = self.files.lock().stat(place).map_err(failed)?;
        let time = |ns: Option<u64>| Some(datetime(ns.unwrap_or(self.time.start_ns)));
        Ok(DescriptorStat {
            type_: kind(stat.is_dir),
            link_count: 1,
            size: stat.size,
            data_access_timestamp: time(stat.accessed_ns),
            data_modification_timestamp: time(stat.modified_ns),
            status_change_timestamp: time(stat.modified_ns),
        })
    }

    pub(super) fn set_times_of(
        &self,
        place: Place,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let ns = |time| match time {
            NewTimestamp::NoChange => Ok(None),
            NewTimestamp::Now => Ok(Some(self.time.wall_ns())),
            NewTimestamp::Timestamp(Datetime { seconds, nanoseconds }) => seconds
                .checked_mul(NS_PER_S)
                .and_then(|ns| ns.checked_add(u64::from(nanoseconds)))
                .map(Some)
                .ok_or(ErrorCode::Overflow),
        };
        let (accessed, modified) = (ns(accessed)?, ns(modified)?);
        self.files.lock().set_times(place, accessed, modified).map_err(failed)
    }

    pub(super) fn writer(
        &mut self,
        fd: &Resource<Descriptor>,
        position: Option<u64>,
    ) -> FsResult<Resource<DynOutputStream>> {
        let place = self.writable(fd)?;
        let writer = Writer::new(self.files, place, position, self.time);
        let stream: DynOutputStream = Box::new(writer);
        Ok(self.table.push(stream)?)
    }
}
