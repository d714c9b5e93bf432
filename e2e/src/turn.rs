//! One heavy story at a time on this machine: a dozen processes each is enough for it.

use std::fs::File;

/// Held while a heavy story runs; others wait, in this process and in others.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

impl Turn {
    /// Waits for the turn.
    pub fn take() -> Self {
        let path = std::env::temp_dir().join("aileron-e2e.turn");
        let lock = File::options().create(true).append(true).open(&path);
        let lock = lock.unwrap_or_else(|why| panic!("open {}: {why}", path.display()));
        lock.lock().unwrap_or_else(|why| panic!("lock {}: {why}", path.display()));
        Self { _lock: lock }
    }
}
