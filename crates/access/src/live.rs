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
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    /// Of the file that the roster was read from.
    stamp: Stamp,
    roster: Arc<Roster>,
    /// Of the file that could not be read, and of which that was said.
    told: Option<Stamp>,
}

impl LiveRoster {
    /// Reads the roster; from here on it must be there.
    pub fn open(path: &Path) -> Result<Self, RosterError> {
        let stamp = stamp(path).unwrap_or_default();
        let roster = Arc::new(Roster::load(path)?);
        let read = Read { stamp, roster, told: None };
        Ok(Self { path: path.to_owned(), read: Mutex::new(read) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As it was last read.
    pub fn last(&self) -> Arc<Roster> {
        Arc::clone(&self.lock().roster)
    }

    /// As it stands in the file now. A file that cannot be read leaves what was read before, which is
    /// said once, and is tried again at each call.
    pub fn now(&self) -> Arc<Roster> {
        let mut read = self.lock();
        let stamp = stamp(&self.path).unwrap_or_default();
        if stamp != read.stamp {
            match Roster::load(&self.path) {
                Ok(roster) => *read = Read { stamp, roster: Arc::new(roster), told: None },
                Err(why) => {
                    if read.told.replace(stamp) != Some(stamp) {
                        tracing::error!("{why}; the roster stays as it was");
                    }
                }
            }
        }
        Arc::clone(&read.roster)
    }

    /// Whoever panicked with the lock held has not changed the roster half.
    fn lock(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}
