//! Federated averaging: the mean of the updates, weighted by their samples.
//!
//! `w = sum(n_i * w_i) / sum(n_i)` (McMahan et al., "Communication-efficient learning of deep
//! networks from decentralized data", 2017, algorithm 1), each weight correctly rounded.

use super::Strategy;
use crate::{Aggregator, Recipe, RunError, Survey, recipe::by_samples};

pub(super) const STRATEGY: Strategy = Strategy {
    name: "fedavg",
    summary: "mean, weighted by samples",
    settings: &[],
    vectors: &[],
    needs: &[],
    build: || Box::new(FedAvg),
    with: |_| Box::new(FedAvg),
};

pub(super) struct FedAvg;

impl Aggregator for FedAvg {
    fn recipe(&self, survey: &dyn Survey) -> Result<Recipe, RunError> {
        Recipe::of(by_samples(survey))
    }
}
