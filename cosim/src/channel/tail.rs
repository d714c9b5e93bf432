//! The last words of a node: what it writes to stderr, drained so that it never blocks, kept for errors.

use std::{
    collections::VecDeque,
    io::{Read, Result},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

const KEPT_BYTES: usize = 4 << 10;

/// The end of a stream that is read for its own sake. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    // The reader is a thread of its own: an error must see what it has read so far.
    kept: Arc<Mutex<VecDeque<u8>>>,
}

impl Tail {
    /// Reads a stream to its end, on a thread of its own.
    pub fn drain(&self, mut stream: impl Read + Send + 'static) -> Result<()> {
        let tail = self.clone();
        thread::Builder::new().name("cosim-tail".to_owned()).spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = stream.read(&mut bytes) {
                if count == 0 {
                    break;
                }
                tail.push(&bytes[..count]);
            }
        })?;
        Ok(())
    }

    /// Adds bytes, and forgets the oldest ones.
    pub fn push(&self, bytes: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let surplus = kept.len().saturating_sub(KEPT_BYTES);
        kept.drain(..surplus);
    }

    /// What is kept, as text.
    #[must_use]
    pub fn text(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}
