//! Time, for deadlines only: nothing here waits for a while, everything waits for an event.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long an event may take on a slow, loaded machine before a story fails.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often something is looked at that cannot tell by itself.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A point in time after which nobody waits any longer.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// That long from now.
    pub fn after(patience: Duration) -> Self {
        Self(now() + patience)
    }

    /// What is left, if anything is.
    pub fn left(self) -> Option<Duration> {
        self.0.checked_duration_since(now()).filter(|left| !left.is_zero())
    }
}

/// Looks until `look` finds something; says `what` was waited for if it never does.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Deadline::after(PATIENCE);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(deadline.left().is_some(), "waited {PATIENCE:?} in vain: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

#[expect(clippy::disallowed_methods, reason = "a story runs in real time; nothing decides by it")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
