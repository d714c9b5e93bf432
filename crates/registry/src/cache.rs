//! What was pulled, by digest, in a directory that several processes may share: whoever wants what
//! another is just pulling waits for it. What is damaged is as good as not there.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use protocol::Digest;
use tokio::time;

/// How often is looked whether another has come to its end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const MODULE: &str = "wasm";
const MANIFEST: &str = "manifest";
const UNFINISHED: &str = "unfinished";
#[cfg(feature = "cosign")]
const COSIGNED: &str = "cosign";
/// Sets apart what threads of one process write.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Modules and manifests by digest.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
    bytes_max: u64,
}

/// The right to pull one module; it lasts until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
}

impl Cache {
    /// In `dir`, which is made when something is kept; beyond `bytes_max` goes what was not used for
    /// longest.
    pub const fn new(dir: PathBuf, bytes_max: u64) -> Self {
        Self { dir, bytes_max }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The module of this digest, if it is there and whole.
    pub fn module(&self, digest: Digest) -> Option<Vec<u8>> {
        self.read(&self.place(digest, MODULE), digest)
    }

    /// Keeps a module; that it cannot be is no reason not to run it.
    pub fn keep_module(&self, digest: Digest, bytes: &[u8]) {
        self.keep(&self.place(digest, MODULE), bytes);
    }

    pub(crate) fn manifest(&self, digest: Digest) -> Option<Vec<u8>> {
        self.read(&self.place(digest, MANIFEST), digest)
    }

    pub(crate) fn keep_manifest(&self, digest: Digest, bytes: &[u8]) {
        self.keep(&self.place(digest, MANIFEST), bytes);
    }

    /// What was kept of cosign's for the image of this digest. Nothing says whether it is whole, but
    /// its signature.
    #[cfg(feature = "cosign")]
    pub(crate) fn cosigned(&self, image: Digest, len_max: u64) -> Option<Vec<u8>> {
        let path = self.place(image, COSIGNED);
        let bytes = bounded(&path, len_max)?;
        touch(&path);
        Some(bytes)
    }

    #[cfg(feature = "cosign")]
    pub(crate) fn keep_cosigned(&self, image: Digest, bytes: &[u8]) {
        self.keep(&self.place(image, COSIGNED), bytes);
    }

    /// Waits until nobody else pulls this module. It may be there by then.
    pub(crate) async fn claim(&self, digest: Digest) -> io::Result<Claim> {
        fs::create_dir_all(&self.dir)?;
        let path = self.place(digest, UNFINISHED);
        loop {
            let file =
                File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
            match file.try_lock() {
                // Whoever had it before may have come to its end, and this file's name is another's.
                Ok(()) if is_still(&file, &path) => return Ok(Claim { file, path }),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => time::sleep(LOOK_EVERY).await,
                Err(TryLockError::Error(why)) => return Err(why),
            }
        }
    }

    /// What was claimed is whole, and bears its name from now on.
    pub(crate) fn finish(&self, claim: &Claim, digest: Digest) -> io::Result<()> {
        claim.file.sync_all()?;
        fs::rename(&claim.path, self.place(digest, MODULE))?;
        sync_dir(&self.dir)?;
        self.shed();
        Ok(())
    }

    fn place(&self, digest: Digest, kind: &str) -> PathBuf {
        self.dir.join(format!("{digest}.{kind}"))
    }

    fn read(&self, path: &Path, digest: Digest) -> Option<Vec<u8>> {
        // What can be kept can be read.
        let bytes = bounded(path, self.bytes_max)?;
        if Digest::of(&bytes) != digest {
            tracing::warn!(file = %path.display(), "what was kept is damaged, and is fetched again");
            return None;
        }
        touch(path);
        Some(bytes)
    }

    fn keep(&self, path: &Path, bytes: &[u8]) {
        if let Err(error) = self.write(path, bytes) {
            tracing::warn!(file = %path.display(), %error, "what was fetched cannot be kept");
        }
        self.shed();
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let (process, number) = (process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
        let unfinished = path.with_added_extension(format!("{process}-{number}.{UNFINISHED}"));
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        sync_dir(&self.dir)
    }

    /// Makes room; what another is just writing or pulling stays.
    fn shed(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let meta = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some((meta.modified().ok()?, meta.len(), entry.path()))
            })
            .collect();
        files.sort_unstable();
        let mut bytes: u64 = files.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in files {
            if bytes <= self.bytes_max {
                return;
            }
            let is_free = File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
            if is_free && fs::remove_file(&path).is_ok() {
                bytes -= len;
            }
        }
    }
}

fn bounded(path: &Path, len_max: u64) -> Option<Vec<u8>> {
    if fs::metadata(path).ok()?.len() > len_max {
        return None;
    }
    fs::read(path).ok()
}

/// When it was used last; where that cannot be noted, it goes earlier than it might.
fn touch(path: &Path) {
    let _ = File::options().write(true).open(path).and_then(|file| file.set_modified(now()));
}

#[expect(clippy::disallowed_methods, reason = "files are dated by the system, whose clock this is")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// A file's name is on the disk, too.
#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Elsewhere, a directory is not opened.
#[cfg(not(unix))]
fn sync_dir(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn is_still(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    let (Ok(open), Ok(named)) = (file.metadata(), fs::metadata(path)) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

/// Elsewhere, a file that is open keeps its name.
#[cfg(not(unix))]
fn is_still(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(dir: &Path, bytes_max: u64) -> Cache {
        Cache::new(dir.join("modules"), bytes_max)
    }

    #[test]
    fn what_is_kept_is_there_and_what_is_damaged_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path(), 100);
        let digest = Digest::of(b"module");
        assert_eq!(cache.module(digest), None);
        cache.keep_module(digest, b"module");
        assert_eq!(cache.module(digest).as_deref(), Some(&b"module"[..]));
        assert_eq!(cache.manifest(digest), None);
        fs::write(cache.place(digest, MODULE), "damaged").unwrap();
        assert_eq!(cache.module(digest), None);
        cache.keep_module(digest, b"module");
        assert!(cache.module(digest).is_some());
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path(), 100);
        let all: Vec<_> = (0..4_u8).map(|n| vec![n; 30]).collect();
        let age = |bytes: &[u8], seconds| {
            let file = File::options().write(true).open(cache.place(Digest::of(bytes), MODULE));
            file.unwrap().set_modified(now() - Duration::from_secs(seconds)).unwrap();
        };
        for (bytes, seconds) in all[..3].iter().zip([300, 200, 100]) {
            cache.keep_module(Digest::of(bytes), bytes);
            age(bytes, seconds);
        }
        // Used once more, it is no longer the oldest.
        assert!(cache.module(Digest::of(&all[0])).is_some());
        cache.keep_module(Digest::of(&all[3]), &all[3]);
        let left: Vec<_> = all.iter().map(|it| cache.module(Digest::of(it)).is_some()).collect();
        assert_eq!(left, [true, false, true, true]);
    }

    #[tokio::test]
    async fn two_do_not_pull_the_same_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path(), 100);
        let digest = Digest::of(b"module");
        let mut claim = cache.claim(digest).await.unwrap();
        let waiting = tokio::spawn({
            let cache = cache.clone();
            async move {
                let _claim = cache.claim(digest).await.unwrap();
                cache.module(digest)
            }
        });
        time::sleep(3 * LOOK_EVERY).await;
        assert!(!waiting.is_finished());
        claim.file.write_all(b"module").unwrap();
        cache.finish(&claim, digest).unwrap();
        drop(claim);
        assert_eq!(waiting.await.unwrap().as_deref(), Some(&b"module"[..]));
    }
}
