//! Federated averaging: the mean of the updates, weighted by their samples.
//!
//! `w = sum(n_i * w_i) / sum(n_i)` (McMahan et al., "Communication-efficient learning of deep
//! networks from decentralized data", 2017, algorithm 1), each weight correctly rounded.

use crate::{Aggregator, Batch, exact};

pub(super) struct FedAvg;

impl Aggregator for FedAvg {
    fn aggregate(&self, batch: &Batch<'_>) -> Vec<f64> {
        (0..batch.len())
            .map(|coordinate| {
                let terms = batch.updates().iter();
                let terms = terms.map(|update| (update.weights[coordinate], update.num_samples));
                exact::weighted_mean(terms, batch.total_samples())
            })
            .collect()
    }
}
