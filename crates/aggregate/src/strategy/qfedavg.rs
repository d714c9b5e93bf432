//! q-FedAvg: who does badly counts for more.
//!
//! With `L = 1 / lr`, `delta_i = L * (x - w_i)` and the loss `F_i` of the base model:
//! `x = x - sum(F_i^q * delta_i) / sum(q * F_i^(q-1) * |delta_i|^2 + L * F_i^q)` (Li et al., "Fair
//! resource allocation in federated learning", 2020, algorithm 2). Losses are only claimed: one above
//! ten times their median counts as that.

use super::{Need, Strategy};
use crate::{
    AggregateError, Aggregator, Center, Recipe, RunError, Setting, Settings, Survey,
    recipe::{Move, modest, ordered_sum, whole_weights},
    settings::real,
};

const SETTINGS: &[Setting] = &[
    real("q", "how much fairness weighs; 0 is the mean", 0.2, (0.0, 100.0)),
    real("client_lr", "the participants' learning rate (1 / L)", 0.1, (1e-9, 1e6)),
];

pub(super) const STRATEGY: Strategy = Strategy {
    name: "qfedavg",
    summary: "mean that counts participants of high loss for more",
    settings: SETTINGS,
    vectors: &[],
    needs: &[Need::Base, Need::Loss],
    build: || with(&Settings::defaults(SETTINGS)),
    with,
};

fn with(settings: &Settings) -> Box<dyn Aggregator> {
    Box::new(QFedAvg { q: settings.get("q"), lipschitz: 1.0 / settings.get("client_lr") })
}

struct QFedAvg {
    q: f64,
    lipschitz: f64,
}

/// Added to each loss, so that a loss of zero can be raised to a negative power.
const LOSS_MIN: f64 = 1e-10;

impl Aggregator for QFedAvg {
    fn recipe(&self, survey: &dyn Survey) -> Result<Recipe, RunError> {
        let losses = modest(losses(survey)?);
        let squared = survey.distances_from(&Center::Base)?;
        let raised: Vec<f64> = losses.iter().map(|loss| loss.powf(self.q)).collect();
        let normaliser = |(loss, squared): (&f64, &f64)| {
            let steep = self.q * loss.powf(self.q - 1.0);
            steep * self.lipschitz * self.lipschitz * squared + self.lipschitz * loss.powf(self.q)
        };
        let normalisers = losses.iter().zip(&squared).map(normaliser).collect();
        let weights = whole_weights("loss", &raised)?;
        let rate = self.lipschitz * ordered_sum(raised) / ordered_sum(normalisers);
        Recipe::stepped(Center::Mean(weights), Move { rate })
    }
}

fn losses(survey: &dyn Survey) -> Result<Vec<f64>, AggregateError> {
    let loss = |(index, facts): (usize, &crate::Facts)| match facts.loss {
        None => Err(AggregateError::Needs { what: "the loss of every update" }),
        Some(loss) if loss.is_finite() && loss >= 0.0 => Ok(loss + LOSS_MIN),
        Some(loss) => Err(AggregateError::Fact { index, what: "loss", found: loss.to_string() }),
    };
    survey.facts().iter().enumerate().map(loss).collect()
}
