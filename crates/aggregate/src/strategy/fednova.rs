//! FedNova: participants that take more local steps do not pull further for it.
//!
//! With `p_i = n_i / n` and `tau_i` local steps: `x = x + tau_eff * sum(p_i * (w_i - x) / tau_i)`,
//! `tau_eff = sum(p_i * tau_i)` (Wang et al., "Tackling the objective inconsistency problem in
//! heterogeneous federated optimization", 2020, equations 6 and 10, for plain local SGD).
//! Steps are only claimed: more than ten times their median count as that.

use super::{Need, Strategy};
use crate::{
    AggregateError, Aggregator, Center, Facts, Recipe, RunError, Setting, Settings, Survey,
    recipe::{Move, modest, ordered_sum, whole_weights},
    settings::real,
};

const SETTINGS: &[Setting] = &[real("server_lr", "the server's learning rate", 1.0, (0.0, 1e6))];

pub(super) const STRATEGY: Strategy = Strategy {
    name: "fednova",
    summary: "mean of the updates, each by its number of local steps",
    settings: SETTINGS,
    vectors: &[],
    needs: &[Need::Base, Need::Steps],
    build: || with(&Settings::defaults(SETTINGS)),
    with,
};

fn with(settings: &Settings) -> Box<dyn Aggregator> {
    Box::new(FedNova { server_lr: settings.get("server_lr") })
}

struct FedNova {
    server_lr: f64,
}

impl Aggregator for FedNova {
    fn recipe(&self, survey: &dyn Survey) -> Result<Recipe, RunError> {
        let steps = modest(steps(survey.facts())?);
        let samples: Vec<f64> =
            survey.facts().iter().map(|facts| facts.num_samples as f64).collect();
        let pairs = || samples.iter().zip(&steps);
        let slowed: Vec<f64> = pairs().map(|(n, tau)| n / tau).collect();
        let all = ordered_sum(samples.clone());
        let effective = ordered_sum(pairs().map(|(n, tau)| n * tau).collect()) / all;
        let weights = whole_weights("steps", &slowed)?;
        let rate = self.server_lr * effective * ordered_sum(slowed) / all;
        Recipe::stepped(Center::Mean(weights), Move { rate })
    }
}

fn steps(facts: &[Facts]) -> Result<Vec<f64>, AggregateError> {
    let steps = |(index, facts): (usize, &Facts)| match facts.steps {
        None => Err(AggregateError::Needs { what: "the local steps of every update" }),
        Some(0) => Err(AggregateError::Fact { index, what: "steps", found: "0".into() }),
        Some(steps) => Ok(steps as f64),
    };
    facts.iter().enumerate().map(steps).collect()
}
