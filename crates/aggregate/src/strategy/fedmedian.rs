//! Coordinate-wise median: whatever fewer than half of the updates say.
//!
//! `w[j] = median(w_1[j], ..., w_n[j])`, of an even number the mean of the two in the middle (Yin
//! et al., "Byzantine-robust distributed learning: towards optimal statistical rates", 2018,
//! definition 1). Samples do not count: they are only claimed.

use super::Strategy;
use crate::{Aggregator, Center, Recipe, RunError, Survey};

pub(super) const STRATEGY: Strategy = Strategy {
    name: "fedmedian",
    summary: "median of each weight; holds while fewer than half are hostile",
    settings: &[],
    vectors: &[],
    needs: &[],
    build: || Box::new(FedMedian),
    with: |_| Box::new(FedMedian),
};

struct FedMedian;

impl Aggregator for FedMedian {
    fn recipe(&self, _: &dyn Survey) -> Result<Recipe, RunError> {
        Recipe::of(Center::Median)
    }
}
