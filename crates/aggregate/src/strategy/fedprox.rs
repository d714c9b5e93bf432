//! FedProx: each participant is held near the model that it started from; the server averages.
//!
//! The guest minimises `F_i(w) + mu / 2 * |w - x|^2` (Li et al., "Federated optimization in
//! heterogeneous networks", 2020, equation 2). `mu` is a setting for the guests; what the server
//! does is FedAvg.

use super::{Strategy, fedavg::FedAvg};
use crate::{Setting, settings::real};

const SETTINGS: &[Setting] =
    &[real("mu", "weight of the proximal term, for the guests (mu)", 0.01, (0.0, 1e6))];

pub(super) const STRATEGY: Strategy = Strategy {
    name: "fedprox",
    summary: "fedavg of participants that stay near the model they started from",
    settings: SETTINGS,
    vectors: &[],
    needs: &[],
    build: || Box::new(FedAvg),
    with: |_| Box::new(FedAvg),
};
