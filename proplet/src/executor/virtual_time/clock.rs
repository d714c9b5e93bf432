//! The clock of a guest in virtual time: it advances with the guest's own fuel, and with its sleeps.

use std::{num::NonZeroU64, time::Duration};

use super::super::{Failure, Limits};

const NS_PER_MS: u128 = 1_000_000;
const NS_PER_US: u64 = 1_000;
/// How many parts a timeline tells apart; a guest may sleep in a loop.
const SPANS_MAX: usize = 1024;

/// How much fuel a device burns in a given time: its speed, for one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FuelRate(NonZeroU64);

impl FuelRate {
    /// So much fuel in a microsecond. None for zero, which would stop time.
    pub const fn per_us(fuel: u32) -> Option<Self> {
        // A u32 a thousand times fits.
        Self::per_ms(fuel as u64 * 1_000)
    }

    /// So much fuel in a millisecond, for slow devices and exact figures. None for zero.
    pub const fn per_ms(fuel: u64) -> Option<Self> {
        match NonZeroU64::new(fuel) {
            Some(fuel) => Some(Self(fuel)),
            None => None,
        }
    }

    /// Fuel per millisecond.
    pub const fn fuel_per_ms(self) -> u64 {
        self.0.get()
    }

    /// The time that so much fuel takes, rounded down.
    pub fn time_ns(self, fuel: u64) -> u64 {
        saturated(u128::from(fuel) * NS_PER_MS / u128::from(self.0.get()))
    }

    /// The fuel that is burnt in so much time, rounded down.
    pub fn fuel(self, time_ns: u64) -> u64 {
        saturated(u128::from(time_ns) * u128::from(self.0.get()) / NS_PER_MS)
    }
}

/// What a guest did in a part of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It computed.
    Compute,
    /// It waited for a clock.
    Sleep,
}

/// A part of a guest's time, in microseconds from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// What it did.
    pub activity: Activity,
    /// When it began.
    pub from_us: u64,
    /// When it ended.
    pub until_us: u64,
}

/// The guest's time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest's time is over")]
pub(super) struct TimeIsOver;

/// Time since the guest's start, as fuel and sleep.
#[derive(Debug)]
pub(super) struct Clock {
    rate: FuelRate,
    start_ns: u64,
    wall_ns_max: u64,
    fuel_max: Option<u64>,
    /// All fuel that the guest was ever given; what it has not burnt lies in its store.
    granted: u64,
    used: u64,
    slept_ns: u64,
    spans: Vec<Span>,
}

impl Clock {
    pub(super) fn new(start_us: u64, rate: FuelRate, limits: &Limits) -> Self {
        let mut clock = Self {
            rate,
            start_ns: start_us.saturating_mul(NS_PER_US),
            wall_ns_max: saturated(limits.wall_max.as_nanos()),
            fuel_max: limits.fuel_max,
            granted: 0,
            used: 0,
            slept_ns: 0,
            spans: Vec::new(),
        };
        clock.granted = clock.allowance();
        clock
    }

    /// What is left in the guest's tank, as it should be.
    pub(super) fn left(&self) -> u64 {
        self.granted.saturating_sub(self.used)
    }

    /// Takes note of what is left in the guest's tank.
    pub(super) fn see(&mut self, left: u64) {
        self.used = self.granted.saturating_sub(left);
    }

    /// Burns fuel for work that the host does for the guest.
    pub(super) fn burn(&mut self, fuel: u64) {
        self.used = self.used.saturating_add(fuel).min(self.granted);
    }

    /// Fuel burnt so far.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Time since the guest's start.
    pub(super) fn elapsed_ns(&self) -> u64 {
        self.rate.time_ns(self.used).saturating_add(self.slept_ns).min(self.wall_ns_max)
    }

    /// When the guest started, since 1970.
    pub(super) fn start_ns(&self) -> u64 {
        self.start_ns
    }

    /// Time since 1970.
    pub(super) fn wall_ns(&self) -> u64 {
        self.start_ns.saturating_add(self.elapsed_ns())
    }

    /// Lets time pass until so long after the guest's start.
    pub(super) fn sleep_until(&mut self, elapsed_ns: u64) -> Result<(), TimeIsOver> {
        let now_ns = self.elapsed_ns();
        let until_ns = elapsed_ns.min(self.wall_ns_max);
        if until_ns > now_ns {
            self.slept_ns = self.slept_ns.saturating_add(until_ns - now_ns);
            self.note_sleep(now_ns, until_ns);
            self.granted = self.allowance().max(self.used);
        }
        if elapsed_ns > self.wall_ns_max { Err(TimeIsOver) } else { Ok(()) }
    }

    /// Why a guest without fuel had to end: for its fuel, or for its time.
    pub(super) fn exhausted(&self) -> Failure {
        match self.fuel_max {
            Some(limit) if limit <= self.granted => Failure::OutOfFuel { limit },
            Some(_) | None => Failure::Timeout { limit: Duration::from_nanos(self.wall_ns_max) },
        }
    }

    /// What the guest did in its time, in order and without gaps.
    pub(super) fn timeline(&self) -> Vec<Span> {
        let mut all = Vec::with_capacity(self.spans.len() * 2 + 1);
        let end_us = self.elapsed_ns() / NS_PER_US;
        let mut from_us = 0;
        for sleep in &self.spans {
            all.extend(computing(from_us, sleep.from_us));
            all.push(*sleep);
            from_us = sleep.until_us;
        }
        all.extend(computing(from_us, end_us));
        all
    }

    /// Fuel for as long as the guest may still compute, and not more than it may ever have.
    fn allowance(&self) -> u64 {
        let for_time = self.rate.fuel(self.wall_ns_max.saturating_sub(self.slept_ns));
        for_time.min(self.fuel_max.unwrap_or(u64::MAX))
    }

    fn note_sleep(&mut self, from_ns: u64, until_ns: u64) {
        let (from_us, until_us) = (from_ns / NS_PER_US, until_ns / NS_PER_US);
        let full = self.spans.len() >= SPANS_MAX;
        match self.spans.last_mut() {
            // Beyond the limit, the last one grows: a timeline has no gaps, and stays small.
            Some(last) if last.until_us == from_us || full => last.until_us = until_us,
            Some(_) | None => {
                self.spans.push(Span { activity: Activity::Sleep, from_us, until_us });
            }
        }
    }
}

fn computing(from_us: u64, until_us: u64) -> Option<Span> {
    (until_us > from_us).then_some(Span { activity: Activity::Compute, from_us, until_us })
}

fn saturated(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
