//! Shows how far a run has come, holds it to a pace, and ends it on Ctrl-C.

use std::{str::FromStr, thread, time::Duration};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use protocol::Timestamp;
use service::{Clock as _, SystemClock};
use sim::{Progress, State};
use tokio_util::sync::CancellationToken;

/// Longer than anybody waits.
const LONG_S: f64 = 1e9;

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

/// Virtual time, its rate, what is done, and how much wall time is left at this rate.
fn progress(wall_s: f64, next_us: u64, state: &State) -> String {
    let virtual_s = next_us as f64 / 1e6;
    let mut said = format!(
        "{virtual_s:.1} s virtual, {:.0} x, {} of {} rounds, {} events",
        virtual_s / wall_s.max(1e-3),
        state.rounds_ended,
        state.rounds,
        state.events
    );
    // A run ends with its rounds or with its time, whichever is first.
    let share = |done: f64, all: f64| if all > 0.0 { done / all } else { 0.0 };
    let rounds = share(state.rounds_ended as f64, state.rounds as f64);
    let done = rounds.max(share(next_us as f64, state.until_us as f64));
    if done > 0.0 {
        let left_s = wall_s * (1.0 - done.min(1.0)) / done;
        said.push_str(&format!(
            ", {} left",
            HumanDuration(Duration::from_secs_f64(left_s.min(LONG_S)))
        ));
    }
    said
}

impl Progress for Watch {
    fn grain_us(&self) -> u64 {
        if self.pace.is_some() { 20_000 } else { 250_000 }
    }

    fn advance(&mut self, next_us: u64, state: &State) -> bool {
        self.hold(next_us);
        let wall = SystemClock.now().since(self.began).as_secs_f64();
        self.bar.set_position(next_us.min(state.until_us));
        self.bar.set_message(progress(wall, next_us, state));
        !self.stop.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_virtual_time_rate_and_what_is_left() {
        let state = State { until_us: 100_000_000, events: 7, rounds_ended: 1, rounds: 4 };
        let said = progress(2.0, 50_000_000, &state);
        assert_eq!(said, "50.0 s virtual, 25 x, 1 of 4 rounds, 7 events, 2 seconds left");
        // Three of four rounds are over, although little of the time is.
        let state = State { rounds_ended: 3, until_us: u64::MAX, ..state };
        assert!(progress(30.0, 1_000_000, &state).ends_with(", 10 seconds left"));
        let state = State { until_us: 0, rounds: 0, rounds_ended: 0, events: 0 };
        assert_eq!(progress(0.0, 0, &state), "0.0 s virtual, 0 x, 0 of 0 rounds, 0 events");
    }
}
