//! FedAvgM: the mean update has momentum at the server.
//!
//! `v = beta * v + delta`, `x = x + lr * v` with `delta = sum(n_i * (w_i - x)) / sum(n_i)` (Hsu et
//! al., "Measuring the effects of non-identical data distribution for federated visual
//! classification", 2019, section 4.3).

use super::{Need, Strategy};
use crate::{
    Aggregator, Recipe, RunError, Setting, Settings, Step, Strip, Survey, recipe::by_samples,
    settings::real,
};

const SETTINGS: &[Setting] = &[
    real("server_lr", "the server's learning rate", 1.0, (0.0, 1e6)),
    real("momentum", "how much of the last step goes on (beta)", 0.9, (0.0, 1.0)),
];

pub(super) const STRATEGY: Strategy = Strategy {
    name: "fedavgm",
    summary: "fedavg with momentum at the server",
    settings: SETTINGS,
    vectors: VECTORS,
    needs: &[Need::Base],
    build: || with(&Settings::defaults(SETTINGS)),
    with,
};

const VECTORS: &[&str] = &["velocity"];

fn with(settings: &Settings) -> Box<dyn Aggregator> {
    Box::new(FedAvgM { server_lr: settings.get("server_lr"), momentum: settings.get("momentum") })
}

#[derive(Clone, Copy)]
struct FedAvgM {
    server_lr: f64,
    momentum: f64,
}

impl Aggregator for FedAvgM {
    fn recipe(&self, survey: &dyn Survey) -> Result<Recipe, RunError> {
        Recipe::stepped(by_samples(survey), *self)
    }
}

impl Step for FedAvgM {
    fn vectors(&self) -> &'static [&'static str] {
        VECTORS
    }

    fn apply(&self, strip: Strip<'_>) {
        let velocities = &mut strip.state[0];
        for ((x, delta), velocity) in strip.model.iter_mut().zip(strip.delta).zip(velocities) {
            *velocity = self.momentum * *velocity + delta;
            *x += self.server_lr * *velocity;
        }
    }
}
