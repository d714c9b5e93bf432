//! The list of strategies. One line each.

mod adaptive;
mod bulyan;
mod fedadagrad;
mod fedadam;
mod fedavg;
mod fedavgm;
mod fedbuff;
mod fedmedian;
mod fednova;
mod fedprox;
mod fedyogi;
mod geometric_median;
mod krum;
mod multikrum;
mod qfedavg;
mod scaffold;
mod trimmed_mean;

use std::collections::BTreeMap;

use crate::{Aggregator, Setting, SettingError, Settings};

/// A strategy in the list, not yet built.
pub struct Strategy {
    pub name: &'static str,
    pub summary: &'static str,
    pub settings: &'static [Setting],
    /// The named vectors that it remembers from round to round, each as long as the model.
    pub vectors: &'static [&'static str],
    /// What it cannot do without, beside the updates.
    pub needs: &'static [Need],
    /// It, with every setting at its default.
    pub build: fn() -> Box<dyn Aggregator>,
    /// It, with settings of its own list.
    with: fn(&Settings) -> Box<dyn Aggregator>,
}

/// Something beside the updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The model that the round started from.
    Base,
    /// [`Facts::loss`](crate::Facts) of every update.
    Loss,
    /// [`Facts::steps`](crate::Facts) of every update.
    Steps,
    /// A control row of every update.
    Controls,
}

/// Raised when a vector of some strategy's state comes to mean something else.
pub const STATE_VERSION: u32 = 1;

pub const STRATEGIES: &[Strategy] = &[
    fedavg::STRATEGY,
    fedprox::STRATEGY,
    fedavgm::STRATEGY,
    fedadagrad::STRATEGY,
    fedadam::STRATEGY,
    fedyogi::STRATEGY,
    fedmedian::STRATEGY,
    trimmed_mean::STRATEGY,
    geometric_median::STRATEGY,
    krum::STRATEGY,
    multikrum::STRATEGY,
    bulyan::STRATEGY,
    qfedavg::STRATEGY,
    scaffold::STRATEGY,
    fednova::STRATEGY,
    fedbuff::STRATEGY,
];

pub fn find(name: &str) -> Option<&'static Strategy> {
    STRATEGIES.iter().find(|strategy| strategy.name == name)
}

impl Strategy {
    /// It, as it was asked for: settings by name, the others at their defaults.
    pub fn configured(
        &self,
        given: &BTreeMap<String, f64>,
    ) -> Result<Box<dyn Aggregator>, SettingError> {
        Ok((self.with)(&Settings::check(self.settings, given)?))
    }
}

impl std::fmt::Debug for Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
