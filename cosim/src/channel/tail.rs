//! The last words of a node: what it writes to stderr, drained so that it never blocks, kept for errors.

use std::{
    collections::VecDeque,
    io::{Read, Result},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

const KEPT_BYTES: usize = 4 << 10;
/// How long the rest of a node's words is waited for once it has ended: its children may hold the
/// stream open for ever.
const SETTLE: Duration = Duration::from_millis(500);

/// The end of a stream that is read for its own sake. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    // The reader is a thread of its own: an error must see what it has read so far.
    shared: Arc<(Mutex<Words>, Condvar)>,
}

#[derive(Debug, Default)]
struct Words {
    kept: VecDeque<u8>,
    /// Streams that are still read.
    open: usize,
}

impl Tail {
    /// Reads a stream to its end, on a thread of its own.
    pub fn drain(&self, mut stream: impl Read + Send + 'static) -> Result<()> {
        let tail = self.clone();
        self.words().open += 1;
        let spawned = thread::Builder::new().name("cosim-tail".to_owned()).spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = stream.read(&mut bytes) {
                if count == 0 {
                    break;
                }
                tail.push(&bytes[..count]);
            }
            tail.close();
        });
        spawned.map(drop).inspect_err(|_| self.close())
    }

    /// Adds bytes, and forgets the oldest ones.
    pub fn push(&self, bytes: &[u8]) {
        let kept = &mut self.words().kept;
        kept.extend(bytes);
        let surplus = kept.len().saturating_sub(KEPT_BYTES);
        kept.drain(..surplus);
    }

    /// What is kept, as text.
    #[must_use]
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.words().kept.iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// What is kept of a node that has ended: all that it said, unless somebody else still holds
    /// its stream.
    #[must_use]
    pub fn last_words(&self) -> String {
        let (_, closed) = &*self.shared;
        let waited = closed.wait_timeout_while(self.words(), SETTLE, |words| words.open > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.text()
    }

    fn close(&self) {
        self.words().open -= 1;
        self.shared.1.notify_all();
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
