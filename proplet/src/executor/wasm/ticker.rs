//! The thread that makes running guests yield at regular intervals, and sleeps while none runs.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use wasmtime::Engine;

/// How often a guest yields, so how late a limit of time can strike.
const TICK: Duration = Duration::from_millis(10);

/// Ticks an engine while guests run on it.
#[derive(Debug)]
pub(super) struct Ticker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    // A mutex with a condition, because a plain thread has to sleep on it.
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    running: usize,
    closed: bool,
}

/// The engine ticks at least as long as this lives.
#[derive(Debug)]
pub(super) struct Ticking(Arc<Shared>);

impl Ticker {
    /// Starts the thread for `engine`; it ends with the ticker.
    pub(super) fn new(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State { running: 0, closed: false }),
            changed: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("wasm-ticker".into()).spawn(move || theirs.tick(&engine))?;
        Ok(Self(shared))
    }

    /// A guest is about to run.
    pub(super) fn guest_runs(&self) -> Ticking {
        self.0.lock().running += 1;
        self.0.changed.notify_one();
        Ticking(Arc::clone(&self.0))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_one();
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self, engine: &Engine) {
        loop {
            let idle = |state: &mut State| state.running == 0 && !state.closed;
            let state = self.changed.wait_while(self.lock(), idle);
            if state.unwrap_or_else(PoisonError::into_inner).closed {
                return;
            }
            thread::sleep(TICK);
            engine.increment_epoch();
        }
    }
}
