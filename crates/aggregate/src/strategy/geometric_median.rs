//! Geometric median (RFA): the point whose distances to the updates have the least sum.
//!
//! Smoothed Weiszfeld: `v = sum(b_i * w_i) / sum(b_i)` with `b_i = n_i / max(nu, |v - w_i|)`,
//! again and again (Pillutla et al., "Robust aggregation for federated learning", 2022, algorithm
//! 2). Where the paper starts is free; here it is the coordinate-wise median, so that a few rounds
//! are enough however far away the hostile are.

use super::Strategy;
use crate::{
    Aggregator, Center, Recipe, RunError, Setting, Settings, Survey,
    recipe::whole_weights,
    settings::{real, whole},
};

const SETTINGS: &[Setting] = &[
    whole("iterations", "times that the weights are found anew (R)", 4, (1, 100)),
    real("smoothing", "the least distance that counts as one (nu)", 1e-6, (1e-30, 1e6)),
];

pub(super) const STRATEGY: Strategy = Strategy {
    name: "geometric_median",
    summary: "the point nearest to all; holds while less than half of the samples are hostile",
    settings: SETTINGS,
    vectors: &[],
    needs: &[],
    build: || with(&Settings::defaults(SETTINGS)),
    with,
};

fn with(settings: &Settings) -> Box<dyn Aggregator> {
    Box::new(GeometricMedian {
        iterations: settings.whole("iterations"),
        smoothing: settings.get("smoothing"),
    })
}

struct GeometricMedian {
    iterations: usize,
    smoothing: f64,
}

impl Aggregator for GeometricMedian {
    fn recipe(&self, survey: &dyn Survey) -> Result<Recipe, RunError> {
        let mut center = Center::Median;
        for _ in 0..self.iterations {
            let squared = survey.distances_from(&center)?;
            let weight = |(squared, facts): (&f64, &crate::Facts)| {
                facts.num_samples as f64 / squared.sqrt().max(self.smoothing)
            };
            let weights: Vec<f64> = squared.iter().zip(survey.facts()).map(weight).collect();
            center = Center::Mean(whole_weights("weight", &weights)?);
        }
        Recipe::of(center)
    }
}
