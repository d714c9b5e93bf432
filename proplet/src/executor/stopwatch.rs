//! How long something took.

use std::time::Duration;

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
        u64::try_from(self.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn elapsed_ms(self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn elapsed(self) -> Duration {
        SystemClock.now().since(self.0)
    }
}
