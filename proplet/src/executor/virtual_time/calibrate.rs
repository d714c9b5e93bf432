//! How fast a device is with a program: fuel against measured time.
//!
//! Fuel counts instructions, and what an instruction takes differs between programs: so a rate holds
//! for one program on one device.

use std::time::Duration;

use super::{super::stopwatch::Stopwatch, Failure, FuelRate, VirtualJob, VirtualWasm};

/// What a calibration found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// The program's rate on the device that was measured.
    pub rate: FuelRate,
    /// What the job burns, on every device.
    pub fuel: u64,
    /// What it took there, as the median of the samples.
    pub measured: Duration,
}

impl VirtualWasm {
    /// Measures the job on this machine and with this engine, so many times, at least once.
    ///
    /// This engine counts fuel, which takes time of its own; to predict the live executor, or
    /// another device, measure those with [`VirtualWasm::calibrate_by`].
    pub fn calibrate(&self, job: &VirtualJob, samples: usize) -> Result<Calibration, Failure> {
        self.calibrate_by(job, samples, |job| {
            let watch = Stopwatch::start();
            self.run(job).end?;
            Ok(Duration::from_micros(watch.elapsed_us()))
        })
    }

    /// Measures the job wherever `measure` runs it, so many times, at least once. Measured is the
    /// time in which it computes, without what it sleeps.
    pub fn calibrate_by(
        &self,
        job: &VirtualJob,
        samples: usize,
        mut measure: impl FnMut(&VirtualJob) -> Result<Duration, Failure>,
    ) -> Result<Calibration, Failure> {
        let outcome = self.run(job);
        outcome.end?;
        let mut measured = Vec::new();
        for _ in 0..samples.max(1) {
            measured.push(measure(job)?);
        }
        measured.sort();
        let measured = measured[measured.len() / 2];
        let rate = rate(outcome.fuel, measured).ok_or_else(|| {
            let fuel = outcome.fuel;
            Failure::host("calibrate", format!("{fuel} units of fuel in {measured:?} is no rate"))
        })?;
        Ok(Calibration { rate, fuel: outcome.fuel, measured })
    }
}

/// None for no time or no fuel.
fn rate(fuel: u64, time: Duration) -> Option<FuelRate> {
    let per_ms = (u128::from(fuel) * 1_000_000).checked_div(time.as_nanos())?;
    FuelRate::per_ms(u64::try_from(per_ms).ok()?)
}
