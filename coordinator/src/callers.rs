//! Callers that wait for a core's answer, by number: the core only ever sees the number.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// Whoever waits. Cloning shares them.
pub(crate) struct Callers<Answer>(
    /// The HTTP side puts a caller in and the event loop takes it out, each for an instant.
    Arc<Mutex<Waiting<Answer>>>,
);

struct Waiting<Answer> {
    next: u64,
    callers: BTreeMap<u64, oneshot::Sender<Answer>>,
}

impl<Answer> Callers<Answer> {
    /// A new caller's number, and where its answer comes.
    pub(crate) fn enter(&self) -> (u64, oneshot::Receiver<Answer>) {
        let (to, answer) = oneshot::channel();
        let mut waiting = self.lock();
        // Those that have gone away need no answer.
        waiting.callers.retain(|_, caller| !caller.is_closed());
        let ticket = waiting.next;
        waiting.next += 1;
        waiting.callers.insert(ticket, to);
        (ticket, answer)
    }

    /// Answers one; a caller that has gone away does not want its answer any more.
    pub(crate) fn answer(&self, ticket: u64, answer: Answer) {
        let caller = self.lock().callers.remove(&ticket);
        if let Some(caller) = caller {
            drop(caller.send(answer));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<Answer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Answer> Default for Callers<Answer> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Waiting { next: 0, callers: BTreeMap::new() })))
    }
}

impl<Answer> Clone for Callers<Answer> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Answer> fmt::Debug for Callers<Answer> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Callers").field(&self.lock().callers.len()).finish()
    }
}
