//! A roster that follows its file, so that who is revoked there is out at once.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{Roster, RosterError};

/// Which version of a file was read: who replaces it makes another inode, who edits it another
/// time or size.
type Stamp = (u64, i64, i64, u64);

/// A roster and where it came from.
#[derive(Debug)]
pub struct LiveRoster {
    path: PathBuf,
    // Shared by every connection's task; held for as long as it takes to copy a pointer or, after
    // a change of the file, to read it.
    read: Mutex<(Stamp, Arc<Roster>)>,
}

impl LiveRoster {
    /// Reads the roster; from here on it must be there.
    pub fn open(path: &Path) -> Result<Self, RosterError> {
        let stamp = stamp(path).unwrap_or_default();
        let roster = Roster::load(path)?;
        Ok(Self { path: path.to_owned(), read: Mutex::new((stamp, Arc::new(roster))) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As it was last read.
    pub fn last(&self) -> Arc<Roster> {
        Arc::clone(&self.lock().1)
    }

    /// As it stands in the file now. A file that cannot be read leaves what was read before, and
    /// says so once.
    pub fn now(&self) -> Arc<Roster> {
        let mut read = self.lock();
        let stamp = stamp(&self.path).unwrap_or_default();
        if stamp != read.0 {
            read.0 = stamp;
            match Roster::load(&self.path) {
                Ok(roster) => read.1 = Arc::new(roster),
                Err(why) => tracing::error!("{why}; the roster stays as it was"),
            }
        }
        Arc::clone(&read.1)
    }

    /// Whoever panicked with the lock held has not changed the roster half.
    fn lock(&self) -> MutexGuard<'_, (Stamp, Arc<Roster>)> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}
