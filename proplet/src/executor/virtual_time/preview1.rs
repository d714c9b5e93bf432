//! WASI preview 1 in virtual time: all its functions, over the guest's own [`World`].
//!
//! None of them waits, so a guest runs to its end on the thread that called it, without a runtime.
//! Error codes, and what traps, are those of the live executor.

#![expect(clippy::too_many_arguments, reason = "the parameters are WASI's")]

mod descriptors;
mod paths;
mod time;

use wasmtime::{Caller, Extern, Linker, format_err};
use wasmtime_wasi::I32Exit;

use super::{clock::TimeIsOver, volume::FileError, world::World};

const MODULE: &str = "wasi_snapshot_preview1";

const BADF: u16 = 8;
const EXIST: u16 = 20;
const ILSEQ: u16 = 25;
const INVAL: u16 = 28;
const ISDIR: u16 = 31;
const MFILE: u16 = 33;
const NAMETOOLONG: u16 = 37;
const NOENT: u16 = 44;
const NOTDIR: u16 = 54;
const NOTEMPTY: u16 = 55;
const NOTSUP: u16 = 58;
const NOTSOCK: u16 = 57;
const OVERFLOW: u16 = 61;
const PERM: u16 = 63;
const SPIPE: u16 = 70;

/// Why a call does not succeed.
enum Stop {
    /// The guest is told.
    Errno(u16),
    /// The guest ends.
    End(wasmtime::Error),
}

type Done = Result<(), Stop>;

impl From<FileError> for Stop {
    fn from(error: FileError) -> Self {
        Self::Errno(match error {
            FileError::BadDescriptor => BADF,
            FileError::Exists => EXIST,
            FileError::Invalid => INVAL,
            FileError::IsDirectory => ISDIR,
            FileError::NameTooLong => NAMETOOLONG,
            FileError::NoEntry => NOENT,
            FileError::NotDirectory => NOTDIR,
            FileError::NotEmpty => NOTEMPTY,
            FileError::NotPermitted => PERM,
            FileError::Quota => return Self::End(error.into()),
        })
    }
}

impl Stop {
    /// A number that names nothing ends the guest.
    fn unknown(kind: &str) -> Self {
        Self::End(format_err!("Invalid enum value {kind}"))
    }
}

impl From<wasmtime::Error> for Stop {
    fn from(error: wasmtime::Error) -> Self {
        Self::End(error)
    }
}

impl From<TimeIsOver> for Stop {
    fn from(over: TimeIsOver) -> Self {
        Self::End(over.into())
    }
}

/// One call of the guest: its memory, and its world.
struct Call<'a> {
    memory: &'a mut [u8],
    world: &'a mut World,
}

impl Call<'_> {
    fn at(&mut self, address: u32, len: usize) -> Result<&mut [u8], Stop> {
        let from = address as usize;
        let range = from..from.saturating_add(len);
        self.memory.get_mut(range).ok_or_else(|| {
            Stop::End(format_err!("a pointer of the guest leads out of its memory: {address:#x}"))
        })
    }

    fn put(&mut self, address: u32, bytes: &[u8]) -> Done {
        self.at(address, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn put_u32(&mut self, address: u32, value: u32) -> Done {
        self.put(address, &value.to_le_bytes())
    }

    fn put_u64(&mut self, address: u32, value: u64) -> Done {
        self.put(address, &value.to_le_bytes())
    }

    fn array<const N: usize>(&mut self, address: u32) -> Result<[u8; N], Stop> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.at(address, N)?);
        Ok(bytes)
    }

    fn u16(&mut self, address: u32) -> Result<u16, Stop> {
        Ok(u16::from_le_bytes(self.array(address)?))
    }

    fn u32(&mut self, address: u32) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(self.array(address)?))
    }

    fn u64(&mut self, address: u32) -> Result<u64, Stop> {
        Ok(u64::from_le_bytes(self.array(address)?))
    }

    fn text(&mut self, address: u32, len: u32) -> Result<String, Stop> {
        let bytes = self.at(address, len as usize)?.to_vec();
        self.world.moved(bytes.len());
        String::from_utf8(bytes).map_err(|_| Stop::Errno(ILSEQ))
    }

    /// Writes texts one after another, each with a zero at its end, and where each begins.
    fn put_texts(&mut self, mut pointers: u32, mut buffer: u32, texts: &[String]) -> Done {
        for text in texts {
            self.put_u32(pointers, buffer)?;
            self.put(buffer, text.as_bytes())?;
            self.put(after(buffer, text.len()), &[0])?;
            pointers = after(pointers, 4);
            buffer = after(buffer, text.len() + 1);
            self.world.moved(text.len());
        }
        Ok(())
    }

    fn put_sizes(&mut self, count: u32, bytes: u32, texts: &[String]) -> Done {
        let total: usize = texts.iter().map(|text| text.len() + 1).sum();
        self.put_u32(count, size(texts.len())?)?;
        self.put_u32(bytes, size(total)?)
    }

    fn args_get(&mut self, pointers: u32, buffer: u32) -> Done {
        let args = self.world.args.clone();
        self.put_texts(pointers, buffer, &args)
    }

    fn args_sizes_get(&mut self, count: u32, bytes: u32) -> Done {
        let args = self.world.args.clone();
        self.put_sizes(count, bytes, &args)
    }

    fn environ_get(&mut self, pointers: u32, buffer: u32) -> Done {
        let env = self.environment();
        self.put_texts(pointers, buffer, &env)
    }

    fn environ_sizes_get(&mut self, count: u32, bytes: u32) -> Done {
        let env = self.environment();
        self.put_sizes(count, bytes, &env)
    }

    fn environment(&self) -> Vec<String> {
        self.world.env.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

/// Lets a function work on the guest's memory and world, at the guest's present time.
fn enter(
    caller: &mut Caller<'_, World>,
    work: impl FnOnce(&mut Call<'_>) -> Done,
) -> wasmtime::Result<i32> {
    let left = caller.get_fuel()?;
    let memory = caller.get_export("memory").and_then(Extern::into_memory);
    let memory = memory.ok_or_else(|| format_err!("missing required memory export"))?;
    let (memory, world) = memory.data_and_store_mut(&mut *caller);
    world.clock.see(left);
    let done = work(&mut Call { memory, world });
    let now_left = world.clock.left();
    if now_left != left {
        caller.set_fuel(now_left)?;
    }
    match done {
        Ok(()) => Ok(0),
        Err(Stop::Errno(errno)) => Ok(i32::from(errno)),
        Err(Stop::End(error)) => Err(error),
    }
}

/// Names the functions that a linker is to have, with the types of their parameters.
macro_rules! offer {
    ($linker:ident; $($name:ident($($param:ident: $ty:ty),*);)*) => {
        $($linker.func_wrap(
            MODULE,
            stringify!($name),
            |mut caller: Caller<'_, World>, $($param: $ty),*| {
                enter(&mut caller, |call| call.$name($($param),*))
            },
        )?;)*
    };
}

/// All of preview 1.
pub(super) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<World>> {
    let mut linker = Linker::new(engine);
    offer_descriptors(&mut linker)?;
    offer_paths(&mut linker)?;
    offer! { linker;
        args_get(pointers: u32, buffer: u32);
        args_sizes_get(count: u32, bytes: u32);
        environ_get(pointers: u32, buffer: u32);
        environ_sizes_get(count: u32, bytes: u32);
        clock_res_get(id: u32, result: u32);
        clock_time_get(id: u32, precision: u64, result: u32);
        poll_oneoff(subscriptions: u32, events: u32, count: u32, result: u32);
        random_get(buffer: u32, len: u32);
        sched_yield();
        sock_accept(fd: u32, flags: u32, result: u32);
        sock_recv(fd: u32, list: u32, count: u32, flags: u32, received: u32, result: u32);
        sock_send(fd: u32, list: u32, count: u32, flags: u32, sent: u32);
        sock_shutdown(fd: u32, how: u32);
    }
    linker.func_wrap(MODULE, "proc_exit", |code: i32| Err::<(), _>(I32Exit(code).into()))?;
    linker.func_wrap(MODULE, "proc_raise", |signal: i32| {
        Err::<i32, _>(format_err!("the guest raised signal {signal}"))
    })?;
    Ok(linker)
}

fn offer_descriptors(linker: &mut Linker<World>) -> wasmtime::Result<()> {
    offer! { linker;
        fd_advise(fd: u32, offset: u64, len: u64, advice: u32);
        fd_allocate(fd: u32, offset: u64, len: u64);
        fd_close(fd: u32);
        fd_datasync(fd: u32);
        fd_fdstat_get(fd: u32, result: u32);
        fd_fdstat_set_flags(fd: u32, flags: u32);
        fd_fdstat_set_rights(fd: u32, base: u64, inheriting: u64);
        fd_filestat_get(fd: u32, result: u32);
        fd_filestat_set_size(fd: u32, size: u64);
        fd_filestat_set_times(fd: u32, accessed: u64, modified: u64, flags: u32);
        fd_pread(fd: u32, list: u32, count: u32, offset: u64, result: u32);
        fd_prestat_get(fd: u32, result: u32);
        fd_prestat_dir_name(fd: u32, path: u32, len: u32);
        fd_pwrite(fd: u32, list: u32, count: u32, offset: u64, result: u32);
        fd_read(fd: u32, list: u32, count: u32, result: u32);
        fd_readdir(fd: u32, buffer: u32, len: u32, cookie: u64, result: u32);
        fd_renumber(from: u32, to: u32);
        fd_seek(fd: u32, offset: i64, whence: u32, result: u32);
        fd_sync(fd: u32);
        fd_tell(fd: u32, result: u32);
        fd_write(fd: u32, list: u32, count: u32, result: u32);
    }
    Ok(())
}

fn offer_paths(linker: &mut Linker<World>) -> wasmtime::Result<()> {
    offer! { linker;
        path_create_directory(fd: u32, path: u32, len: u32);
        path_filestat_get(fd: u32, flags: u32, path: u32, len: u32, result: u32);
        path_filestat_set_times(fd: u32, lookup: u32, path: u32, len: u32, accessed: u64, modified: u64, flags: u32);
        path_link(fd: u32, flags: u32, path: u32, len: u32, to: u32, new: u32, new_len: u32);
        path_open(fd: u32, lookup: u32, path: u32, len: u32, how: u32, base: u64, inheriting: u64, flags: u32, result: u32);
        path_readlink(fd: u32, path: u32, len: u32, buffer: u32, buffer_len: u32, result: u32);
        path_remove_directory(fd: u32, path: u32, len: u32);
        path_rename(fd: u32, path: u32, len: u32, to: u32, new: u32, new_len: u32);
        path_symlink(old: u32, old_len: u32, fd: u32, path: u32, len: u32);
        path_unlink_file(fd: u32, path: u32, len: u32);
    }
    Ok(())
}

/// An address so far on; one that wraps around leads out of memory.
fn after(address: u32, bytes: usize) -> u32 {
    u32::try_from(bytes).ok().and_then(|bytes| address.checked_add(bytes)).unwrap_or(u32::MAX)
}

fn size(len: usize) -> Result<u32, Stop> {
    u32::try_from(len).map_err(|_| Stop::Errno(OVERFLOW))
}
