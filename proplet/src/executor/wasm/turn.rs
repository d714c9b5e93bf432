//! Whose turn it is to compile a program, among all processes that keep theirs in one directory.
//!
//! One holds a lock on a file beside the program's, the others look now and then whether the
//! program is there. A lock goes with its process, however that ends. Somebody who stands still
//! with it holds the others up for a while and no longer: what they then make is the same.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, TryLockError as TryLock},
    thread,
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether the program is there.
const POLL: Duration = Duration::from_millis(10);
/// Compiling the largest program that is taken takes less, on a small and busy device.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// What comes of waiting.
#[derive(Debug)]
pub(super) enum Turn<T> {
    /// Somebody has made it meanwhile.
    Made(T),
    /// The caller may make it; everybody else waits until this is dropped.
    Ours(Option<Lock>),
    /// The caller does not want it any more.
    Cancelled,
}

/// Held by whoever compiles.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is held. Who has opened it already finds what was made, and needs no lock.
        let _ = fs::remove_file(&self.path);
    }
}

/// Takes what other threads of this process may hold; nothing if it is cancelled before.
pub(super) fn take_unless<'a>(
    lock: &'a Mutex<()>,
    stop: &CancellationToken,
) -> Option<MutexGuard<'a, ()>> {
    loop {
        match lock.try_lock() {
            Ok(taken) => return Some(taken),
            Err(TryLock::Poisoned(taken)) => return Some(taken.into_inner()),
            Err(TryLock::WouldBlock) if stop.is_cancelled() => return None,
            Err(TryLock::WouldBlock) => thread::sleep(POLL),
        }
    }
}

/// Waits until `made` finds something, or until nobody else is about to make it.
pub(super) fn wait<T>(
    lock: &Path,
    stop: &CancellationToken,
    mut made: impl FnMut() -> Option<T>,
) -> Turn<T> {
    let began = Instant::now();
    loop {
        let taken = take(lock);
        // Looked for after the lock was taken: who held it before has made it.
        if let Some(made) = made() {
            return Turn::Made(made);
        }
        match taken {
            Ok(Some(lock)) => return Turn::Ours(Some(lock)),
            Ok(None) if stop.is_cancelled() => return Turn::Cancelled,
            Ok(None) if began.elapsed() < WAIT_MAX => thread::sleep(POLL),
            Ok(None) => {
                let waited_s = WAIT_MAX.as_secs();
                tracing::warn!(file = %lock.display(), waited_s, "another process is compiling this program for too long");
                return Turn::Ours(None);
            }
            Err(error) => {
                tracing::warn!(file = %lock.display(), %error, "a program is compiled without a lock");
                return Turn::Ours(None);
            }
        }
    }
}

fn take(path: &Path) -> io::Result<Option<Lock>> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { path: path.to_owned(), _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn of_many_who_want_it_one_makes_it() {
        let dir = tempfile::tempdir().unwrap();
        let (lock, product) = (dir.path().join("it.lock"), dir.path().join("it"));
        let never = CancellationToken::new();
        let (making, made) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| match wait(&lock, &never, || product.exists().then_some(())) {
                    Turn::Made(()) => {}
                    Turn::Cancelled => panic!("nobody cancels"),
                    Turn::Ours(lock) => {
                        assert!(lock.is_some());
                        assert_eq!(making.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
                        thread::sleep(POLL * 5);
                        made.fetch_add(1, Ordering::SeqCst);
                        fs::write(&product, b"it").unwrap();
                        making.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
        assert!(!lock.exists(), "nothing is left behind");
    }

    #[test]
    fn who_fails_lets_the_next_one_try() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("it.lock");
        for _ in 0..2 {
            let never = CancellationToken::new();
            assert!(matches!(wait(&lock, &never, || None::<()>), Turn::Ours(Some(_))));
        }
    }

    #[test]
    fn who_waits_hears_that_it_is_not_wanted_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("it.lock");
        let stop = CancellationToken::new();
        let held = wait(&lock, &stop, || None::<()>);
        let own = Mutex::new(());
        let taken = take_unless(&own, &stop);
        thread::scope(|scope| {
            let beside = scope.spawn(|| wait(&lock, &stop, || None::<()>));
            let within = scope.spawn(|| take_unless(&own, &stop).is_some());
            stop.cancel();
            assert!(matches!(beside.join().unwrap(), Turn::Cancelled));
            assert!(!within.join().unwrap());
        });
        drop((held, taken));
    }

    #[test]
    fn where_no_lock_can_be_had_it_is_made_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("nowhere/it.lock");
        assert!(matches!(
            wait(&nowhere, &CancellationToken::new(), || None::<()>),
            Turn::Ours(None)
        ));
    }
}
