//! What this process takes: its CPU time and its resident set, as Linux counts them.

use agent::Measurement;
use service::figures::{cpu_ticks, resident_bytes};
use tokio::time::Instant;

/// Clock ticks in a second of user space, the same on every Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// Remembers when it was last asked.
#[derive(Debug)]
pub(super) struct Meter {
    started: Instant,
    asked: Instant,
    ticks: u64,
}

impl Meter {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self { started: now, asked: now, ticks: cpu_ticks().unwrap_or_default() }
    }

    /// Since it was last asked; nothing where the system does not say.
    pub(super) fn measure(&mut self) -> Option<Measurement> {
        let (ticks, memory_bytes) = (cpu_ticks()?, resident_bytes()?);
        let now = Instant::now();
        let seconds = now.duration_since(self.asked).as_secs_f64().max(1e-3);
        let used = u32::try_from(ticks.saturating_sub(self.ticks)).unwrap_or(u32::MAX);
        (self.asked, self.ticks) = (now, ticks);
        Some(Measurement {
            cpu_percent: tenths(100.0 * f64::from(used) / TICKS_A_SECOND / seconds),
            memory_bytes,
            uptime_s: now.duration_since(self.started).as_secs(),
        })
    }
}

/// More digits would be noise, on the wire every time.
fn tenths(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn it_sees_this_process_work() {
        let mut meter = Meter::start();
        let before = cpu_ticks().expect("Linux says");
        let mut sum = 0_u64;
        while cpu_ticks().expect("Linux says") < before + 5 {
            sum = (0..100_000_u64).fold(sum, |sum, n| sum.wrapping_mul(31).wrapping_add(n));
        }
        let measured = meter.measure().expect("Linux says");
        assert!(measured.cpu_percent > 0.0, "{measured:?} {sum}");
        assert!(measured.memory_bytes > 1 << 20, "{measured:?}");
    }
}
