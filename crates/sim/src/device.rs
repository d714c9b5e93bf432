//! What a node runs on: how fast, with how much memory and energy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

impl Device {
    /// How long `fuel` takes on this device.
    pub fn fuel_us(&self, fuel: u64) -> u64 {
        (fuel as f64 / self.fuel_per_us.max(1e-6)).ceil() as u64
    }
}

/// The built-in classes as data, for whoever reads YAML.
pub const DEVICES_YAML: &str = include_str!("../devices.yaml");
