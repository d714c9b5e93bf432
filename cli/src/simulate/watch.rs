//! Shows how far a run has come, holds it to a pace, and ends it on Ctrl-C.

use std::{str::FromStr, thread, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use protocol::Timestamp;
use service::{Clock as _, SystemClock};
use sim::{Progress, State};
use tokio_util::sync::CancellationToken;

/// Virtual seconds in one second of the wall.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace(f64);

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(pace) if pace.is_finite() && pace > 0.0 => Ok(Self(pace)),
            Ok(_) | Err(_) => Err("it takes a number above 0: virtual seconds a second".to_owned()),
        }
    }
}

/// The operator's view of a running world.
pub(super) struct Watch {
    bar: ProgressBar,
    pace: Option<Pace>,
    began: Timestamp,
    stop: CancellationToken,
}

impl Watch {
    pub(super) fn new(until_us: u64, pace: Option<Pace>, stop: CancellationToken) -> Self {
        let template = "{spinner} [{bar:30}] {msg}";
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(until_us).with_style(style);
        Self { bar, pace, began: SystemClock.now(), stop }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Waits until the wall has caught up with virtual time.
    fn hold(&self, next_us: u64) {
        let Some(Pace(pace)) = self.pace else { return };
        let due = Duration::from_secs_f64(next_us as f64 / 1e6 / pace);
        let passed = SystemClock.now().since(self.began);
        let step = Duration::from_millis(50);
        let mut left = due.saturating_sub(passed);
        while !left.is_zero() && !self.stop.is_cancelled() {
            thread::sleep(left.min(step));
            left = left.saturating_sub(step);
        }
    }
}

impl Progress for Watch {
    fn grain_us(&self) -> u64 {
        if self.pace.is_some() { 20_000 } else { 250_000 }
    }

    fn advance(&mut self, next_us: u64, state: &State) -> bool {
        self.hold(next_us);
        let wall = SystemClock.now().since(self.began).as_secs_f64();
        let virtual_s = next_us as f64 / 1e6;
        self.bar.set_position(next_us.min(state.until_us));
        self.bar.set_message(format!(
            "{virtual_s:.1} s virtual, {:.0} x, {} of {} rounds, {} events",
            virtual_s / wall.max(1e-3),
            state.rounds_ended,
            state.rounds,
            state.events
        ));
        !self.stop.is_cancelled()
    }
}
