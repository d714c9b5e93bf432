//! How long something took.

use protocol::Timestamp;
use service::{Clock as _, SystemClock};

/// Runs from when it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch(Timestamp);

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self(SystemClock.now())
    }

    pub(super) fn elapsed_us(self) -> u64 {
        u64::try_from(SystemClock.now().since(self.0).as_micros()).unwrap_or(u64::MAX)
    }
}
