//! Compiled programs on disk, so that a process does not compile what another one did: an earlier
//! one, or one beside it that keeps its programs in the same directory.
//!
//! Each is a file `<sha256 of the program>-<engine>.cwasm`, and beside it a `.sha256` with the
//! digest of that file, in the form that `sha256sum -c` reads. A file whose digest does not match
//! was torn or changed, and is made anew. This guards against accidents, not against somebody who
//! may write here: such a one could run programs anyway.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use protocol::Digest;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::turn::{self, Turn};

/// Beside a program: its digest, and what is locked while it is made.
const SUM: &str = "sha256";
const LOCK: &str = "lock";

/// A directory of compiled programs.
#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    bytes_max: u64,
    /// Marks what this engine can load.
    engine: String,
}

impl Disk {
    pub(super) fn new(dir: &Path, bytes_max: u64, engine: String) -> Self {
        Self { dir: dir.to_owned(), bytes_max, engine }
    }

    /// The file with the compiled form of the program; or the right to make it, once no other
    /// process is about to.
    pub(super) fn find_or_turn(&self, program: Digest, stop: &CancellationToken) -> Turn<PathBuf> {
        if let Some(found) = self.find(program) {
            return Turn::Made(found);
        }
        if let Err(error) = create_private(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "compiled programs have no place");
            return Turn::Ours(None);
        }
        let lock = self.path(program).with_added_extension(LOCK);
        turn::wait(&lock, stop, || self.find(program))
    }

    /// The file with the compiled form of the program, if it is there and whole.
    fn find(&self, program: Digest) -> Option<PathBuf> {
        let path = self.path(program);
        match whole(&path) {
            Ok(true) => Some(path),
            Ok(false) => {
                tracing::warn!(file = %path.display(), "a compiled program is damaged; compiling it again");
                remove(&path);
                None
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "a compiled program cannot be read");
                None
            }
        }
    }

    /// Keeps the compiled form, and removes the oldest if there is too much.
    pub(super) fn keep(&self, program: Digest, compiled: &[u8]) -> io::Result<()> {
        create_private(&self.dir)?;
        let path = self.path(program);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // The digest first: whoever finds the file finds the digest.
        let sum = format!("{}  {name}\n", Digest::of(compiled));
        write_whole(&sum_path(&path), sum.as_bytes())?;
        write_whole(&path, compiled)?;
        fs::File::open(&self.dir)?.sync_all()?;
        self.evict(&path)
    }

    /// Forgets a file that was whole and yet could not be loaded.
    pub(super) fn forget(&self, path: &Path) {
        remove(path);
    }

    fn path(&self, program: Digest) -> PathBuf {
        self.dir.join(format!("{program}-{}.cwasm", self.engine))
    }

    fn evict(&self, newest: &Path) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                // Another process is about the same.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let beside = |it: &std::ffi::OsStr| it == SUM || it == LOCK;
            if meta.is_file() && !entry.path().extension().is_some_and(beside) {
                files.push((meta.modified()?, entry.path(), meta.len()));
            }
        }
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, _, len)| len).sum();
        for (_, path, len) in files {
            if bytes <= self.bytes_max {
                break;
            }
            if path != newest {
                remove(&path);
                bytes -= len;
            }
        }
        Ok(())
    }
}

pub(super) fn sum_path(path: &Path) -> PathBuf {
    path.with_added_extension(SUM)
}

/// Whether the file has the digest that lies beside it.
pub(super) fn whole(path: &Path) -> io::Result<bool> {
    let mut file = fs::File::open(path)?;
    let expected = match fs::read_to_string(sum_path(path)) {
        Ok(text) => text,
        // Written before the file: somebody has taken it away.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(expected.split_whitespace().next() == Some(found.as_str()))
}

/// Writes the file so that it is there whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A process may run several proplets.
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let (process, number) = (process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed));
    let unfinished = path.with_added_extension(format!("{process}-{number}.unfinished"));
    let mut file = fs::File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

fn create_private(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn remove(path: &Path) {
    for path in [path.to_owned(), sum_path(path)] {
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %path.display(), %error, "an old compiled program stays");
        }
    }
}
