//! What a node runs on: how fast, with how much memory and energy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Dice;

/// A class of devices. Where its numbers come from stands beside them in the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Device {
    /// The class's name; filled in from the key that it stands under.
    pub class: String,
    /// Speed beside an x86 server core.
    pub speed: f64,
    /// Fuel of the sandbox burned in one microsecond.
    pub fuel_per_us: f64,
    /// What a task of the `model` fidelity takes.
    pub task_us: u64,
    /// Spread of that around its mean, uniformly, as a share.
    pub task_spread: f64,
    /// How much longer than usual a task takes, drawn anew for each; no longer by default.
    pub slowdown: Option<Slowdown>,
    /// From the decision to run a task to its first instruction.
    pub start_us: u64,
    pub memory_bytes: u64,
    pub flash_bytes: u64,
    /// None: mains.
    pub battery_j: Option<f64>,
    pub j_per_mfuel: f64,
    /// Drawn while a task computes.
    pub active_w: f64,
    pub j_per_byte: f64,
    pub sources: Vec<String>,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            class: "x86".to_owned(),
            speed: 1.0,
            fuel_per_us: 1_000.0,
            task_us: 200_000,
            task_spread: 0.1,
            slowdown: None,
            start_us: 1_000,
            memory_bytes: 8 << 30,
            flash_bytes: 64 << 30,
            battery_j: None,
            j_per_mfuel: 0.0,
            active_w: 0.0,
            j_per_byte: 0.0,
            sources: vec![],
        }
    }
}

/// A factor of at least 1 with a heavy tail: most tasks take about as long as they should, some
/// many times as long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Slowdown {
    /// `u^(-1/alpha)` of a uniform `u`, at most `max`: the smaller `alpha`, the heavier the tail.
    Pareto { alpha: f64, max: f64 },
}

impl Slowdown {
    /// What is wrong with it.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self::Pareto { alpha, max } = self;
        if !(alpha.is_finite() && *alpha > 0.0) {
            return Err(format!("alpha takes a number above 0, not {alpha}"));
        }
        if !(max.is_finite() && *max >= 1.0) {
            return Err(format!("max takes a number of at least 1, not {max}"));
        }
        Ok(())
    }

    fn draw(&self, dice: &mut Dice) -> f64 {
        let Self::Pareto { alpha, max } = self;
        (1.0 - dice.unit()).powf(-1.0 / alpha).clamp(1.0, *max)
    }
}

impl Device {
    /// How many times as long as usual the task with this seed takes.
    pub(crate) fn slowness(&self, seed: u64) -> f64 {
        let draw = |it: &Slowdown| it.draw(&mut Dice::of(seed, "", "slowdown"));
        self.slowdown.as_ref().map_or(1.0, draw)
    }

    /// How long `fuel` takes on this device.
    pub fn fuel_us(&self, fuel: u64) -> u64 {
        (fuel as f64 / self.fuel_per_us.max(1e-6)).ceil() as u64
    }
}

/// The built-in classes as data, for whoever reads YAML.
pub const DEVICES_YAML: &str = include_str!("../devices.yaml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slowdowns_have_the_tail_that_they_say() {
        let slowdown = Some(Slowdown::Pareto { alpha: 1.5, max: 100.0 });
        let device = Device { slowdown, ..Device::default() };
        let mut drawn: Vec<f64> = (0..10_000).map(|seed| device.slowness(seed)).collect();
        drawn.sort_by(f64::total_cmp);
        assert!(drawn[0] >= 1.0 && drawn[9_999] <= 100.0);
        for (share, at) in [(0.5_f64, 5_000), (0.9, 9_000), (0.99, 9_900)] {
            let expected = (1.0 - share).powf(-1.0 / 1.5);
            let found: f64 = drawn[at];
            assert!((found / expected - 1.0).abs() < 0.1, "{share}: {found}, not {expected}");
        }
        assert_eq!(Device::default().slowness(7), 1.0);
    }

    #[test]
    fn slowdowns_that_are_none_are_refused() {
        for (alpha, max) in [(0.0, 10.0), (-1.0, 10.0), (f64::NAN, 10.0), (1.0, 0.5)] {
            assert!(Slowdown::Pareto { alpha, max }.check().is_err(), "{alpha} {max}");
        }
    }
}
