//! The list of strategies. One line each.

mod fedavg;

use crate::Aggregator;

/// A strategy in the list, not yet built.
pub struct Strategy {
    pub name: &'static str,
    pub summary: &'static str,
    pub build: fn() -> Box<dyn Aggregator>,
}

pub const STRATEGIES: &[Strategy] = &[Strategy {
    name: "fedavg",
    summary: "mean, weighted by samples",
    build: || Box::new(fedavg::FedAvg),
}];

pub fn find(name: &str) -> Option<&'static Strategy> {
    STRATEGIES.iter().find(|strategy| strategy.name == name)
}

impl std::fmt::Debug for Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
