//! What a node's clock shows at a virtual time, and when it will show something.

use std::sync::Arc;

use protocol::Timestamp;

use crate::ClockSpec;

const BILLION: i128 = 1_000_000_000;

/// A clock with an offset, a drift and steps. It never shows an earlier time than before: services
/// keep their time monotonic, so a step back makes it stand still.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    course: Arc<Course>,
    shown: u64,
}

/// How a clock runs; shared by all that run alike.
#[derive(Debug)]
struct Course {
    /// What it shows at 0.
    start: i128,
    drift_ppb: i128,
    /// When it jumps, and by how much in all from then on.
    steps: Vec<(u64, i128)>,
}

impl Clock {
    pub(crate) fn new(epoch: Timestamp, spec: &ClockSpec) -> Self {
        let mut steps: Vec<_> = spec.steps.clone();
        steps.sort_by_key(|step| step.at);
        let mut sum = 0;
        let steps = steps.into_iter().map(|step| {
            sum += i128::from(step.by_us);
            (step.at.micros(), sum)
        });
        let course = Course {
            start: i128::from(epoch.as_micros()) + i128::from(spec.offset_us),
            drift_ppb: ((spec.drift_ppm * 1e3) as i128).clamp(-BILLION / 2, BILLION),
            steps: steps.collect(),
        };
        Self { course: Arc::new(course), shown: 0 }
    }

    /// What it shows now.
    pub(crate) fn at(&mut self, time_us: u64) -> Timestamp {
        let raw = self.course.raw(time_us);
        self.shown = self.shown.max(u64::try_from(raw.max(0)).unwrap_or(u64::MAX));
        Timestamp::from_micros(self.shown)
    }

    /// The first virtual time from `from_us` on at which it shows at least `shown`.
    pub(crate) fn when(&self, shown: Timestamp, from_us: u64) -> u64 {
        let wanted = i128::from(shown.as_micros());
        if wanted <= i128::from(self.shown) {
            return from_us;
        }
        let mut begin = 0;
        let mut jump = 0;
        let course = &self.course;
        let ends = course.steps.iter().map(|(at, _)| *at).chain([u64::MAX]);
        let jumps = course.steps.iter().map(|(_, sum)| *sum).chain([0]);
        for (end, next_jump) in ends.zip(jumps) {
            let time = course.solve(wanted - jump).max(begin).max(from_us);
            if time < end {
                return time;
            }
            begin = end;
            jump = next_jump;
        }
        u64::MAX
    }
}

impl Course {
    fn raw(&self, time_us: u64) -> i128 {
        let jump = self.steps.iter().rev().find(|(at, _)| *at <= time_us);
        let time = i128::from(time_us);
        let drift = if self.drift_ppb == 0 { 0 } else { time * self.drift_ppb / BILLION };
        self.start + time + drift + jump.map_or(0, |(_, sum)| *sum)
    }

    /// The first time at which the clock without its steps shows `wanted`.
    fn solve(&self, wanted: i128) -> u64 {
        let ahead = wanted - self.start;
        if ahead <= 0 {
            return 0;
        }
        if self.drift_ppb == 0 {
            return u64::try_from(ahead).unwrap_or(u64::MAX);
        }
        let rate = BILLION + self.drift_ppb;
        let mut time = (ahead * BILLION) / rate;
        // Both divisions round down; two microseconds cover it.
        while time + time * self.drift_ppb / BILLION < ahead {
            time += 1;
        }
        u64::try_from(time).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClockStep, Span};

    const EPOCH: Timestamp = Timestamp::from_micros(1_000_000_000);

    #[test]
    fn a_deadline_is_met_at_the_first_moment_at_which_the_clock_shows_it() {
        let steps = |by: &[(u64, i64)]| {
            by.iter().map(|(at, by_us)| ClockStep { at: Span(*at), by_us: *by_us }).collect()
        };
        let specs = [
            ClockSpec::default(),
            ClockSpec { offset_us: -5_000, drift_ppm: 250.0, steps: vec![] },
            ClockSpec { offset_us: 70, drift_ppm: -1_000.0, steps: vec![] },
            ClockSpec { offset_us: 0, drift_ppm: 30.0, steps: steps(&[(40_000, 9_000)]) },
            ClockSpec { offset_us: 0, drift_ppm: 0.0, steps: steps(&[(40_000, -20_000)]) },
        ];
        for spec in specs {
            let clock = Clock::new(EPOCH, &spec);
            for ahead in (0..200_000).step_by(1_777) {
                let shown = Timestamp::from_micros(EPOCH.as_micros() + ahead);
                let when = clock.when(shown, 0);
                assert!(clock.clone().at(when) >= shown, "{spec:?} {ahead}");
                if when > 0 && spec.steps.is_empty() {
                    assert!(clock.clone().at(when - 1) < shown, "{spec:?} {ahead}");
                }
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_back_stands_still() {
        let step = ClockStep { at: Span(100), by_us: -50 };
        let mut clock = Clock::new(EPOCH, &ClockSpec { steps: vec![step], ..Default::default() });
        let shown: Vec<_> =
            [99, 100, 120, 160].map(|at| clock.at(at).as_micros() - 1_000_000_000).into();
        assert_eq!(shown, [99, 99, 99, 110]);
    }
}
