//! FedAdam: steps in proportion to the recent size of the differences.
//!
//! `v = beta2 * v + (1 - beta2) * delta^2` (Reddi et al., "Adaptive federated optimization", 2021,
//! algorithm 2); the rest is in [`super::adaptive`].

use super::{
    Need, Strategy,
    adaptive::{Adaptive, BETA1, BETA2, SERVER_LR, TAU, VECTORS},
};
use crate::{Aggregator, Setting, Settings};

const SETTINGS: &[Setting] = &[SERVER_LR, BETA1, BETA2, TAU];

pub(super) const STRATEGY: Strategy = Strategy {
    name: "fedadam",
    summary: "fedavg with Adam at the server",
    settings: SETTINGS,
    vectors: VECTORS,
    needs: &[Need::Base],
    build: || with(&Settings::defaults(SETTINGS)),
    with,
};

fn with(settings: &Settings) -> Box<dyn Aggregator> {
    Box::new(Adaptive::new(settings, settings.get(BETA2.name), |v, squared, beta2| {
        beta2 * v + (1.0 - beta2) * squared
    }))
}
