//! FedAdagrad: steps shrink where there has been much change.
//!
//! `v = v + delta^2` (Reddi et al., "Adaptive federated optimization", 2021,
//! algorithm 2); the rest is in [`super::adaptive`].

use super::{
    Need, Strategy,
    adaptive::{Adaptive, BETA1, SERVER_LR, TAU, VECTORS},
};
use crate::{Aggregator, Setting, Settings};

const SETTINGS: &[Setting] = &[SERVER_LR, BETA1, TAU];

pub(super) const STRATEGY: Strategy = Strategy {
    name: "fedadagrad",
    summary: "fedavg with Adagrad at the server",
    settings: SETTINGS,
    vectors: VECTORS,
    needs: &[Need::Base],
    build: || with(&Settings::defaults(SETTINGS)),
    with,
};

fn with(settings: &Settings) -> Box<dyn Aggregator> {
    Box::new(Adaptive::new(settings, 1.0, |v, squared, _| v + squared))
}
