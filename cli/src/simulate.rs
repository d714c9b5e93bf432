//! Runs scenarios: sets the stage, lets the world run, holds its end against the claims.

mod guests;
mod paced;
mod report;
mod show;
mod stage;
mod sweep;
mod tables;
mod watch;
mod workers;

pub(crate) use report::{Judged, judge, run, wrong};
pub(crate) use sweep::sweep;
pub(crate) use tables::Tables;
pub(crate) use watch::Pace;

use std::{collections::BTreeMap, path::PathBuf};

/// What the operator asks for, beside the scenario.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) seed: Option<u64>,
    pub(crate) threads: Option<usize>,
    pub(crate) until: Option<sim::Span>,
    pub(crate) pace: Option<Pace>,
    pub(crate) trace: Option<PathBuf>,
    pub(crate) plot: Option<PathBuf>,
    pub(crate) verbose: bool,
}

/// The built-in classes of devices.
pub(crate) fn devices() -> anyhow::Result<BTreeMap<String, sim::Device>> {
    let mut classes: BTreeMap<String, sim::Device> = serde_saphyr::from_str(sim::DEVICES_YAML)?;
    for (name, device) in &mut classes {
        device.class.clone_from(name);
    }
    Ok(classes)
}
