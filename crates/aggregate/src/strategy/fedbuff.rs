//! FedBuff: updates are taken as they come, a buffer of them at a time; the stale count for less.
//!
//! `x = x + lr * sum(n_i * s_i * (w_i - base_i)) / sum(n_i)` with `s_i = (1 + staleness_i)^-a`
//! (Nguyen et al., "Federated learning with buffered asynchronous aggregation", 2022, algorithm 1
//! and section 5, where `a` is a half and all `n_i` are alike). Each update is compared with the
//! model that it started from: give those as the round's `bases`.

use super::{Need, Strategy};
use crate::{
    Aggregator, Center, Facts, Recipe, RunError, Setting, Settings, Survey,
    recipe::{Move, ordered_sum, whole_weights},
    settings::real,
};

const SETTINGS: &[Setting] = &[
    real("server_lr", "the server's learning rate (eta_g)", 1.0, (0.0, 1e6)),
    real("staleness_exponent", "how fast the stale count for less (a)", 0.5, (0.0, 100.0)),
];

pub(super) const STRATEGY: Strategy = Strategy {
    name: "fedbuff",
    summary: "mean of a buffer of updates of any age, the stale counting for less",
    settings: SETTINGS,
    vectors: &[],
    needs: &[Need::Base],
    build: || with(&Settings::defaults(SETTINGS)),
    with,
};

fn with(settings: &Settings) -> Box<dyn Aggregator> {
    Box::new(FedBuff {
        server_lr: settings.get("server_lr"),
        exponent: settings.get("staleness_exponent"),
    })
}

struct FedBuff {
    server_lr: f64,
    exponent: f64,
}

impl Aggregator for FedBuff {
    fn recipe(&self, survey: &dyn Survey) -> Result<Recipe, RunError> {
        let samples = |facts: &Facts| facts.num_samples as f64;
        let fresh =
            |facts: &Facts| samples(facts) * (1.0 + facts.staleness as f64).powf(-self.exponent);
        let discounted: Vec<f64> = survey.facts().iter().map(fresh).collect();
        let all = ordered_sum(survey.facts().iter().map(samples).collect());
        let weights = whole_weights("staleness", &discounted)?;
        let rate = self.server_lr * ordered_sum(discounted) / all;
        Recipe::stepped(Center::Mean(weights), Move { rate })
    }
}
