//! What FedAdagrad, FedAdam and FedYogi have in common; they differ in their second moment.
//!
//! `m = beta1 * m + (1 - beta1) * delta`, `x = x + lr * m / (sqrt(v) + tau)`, with `v` from
//! `tau^2` on (Reddi et al., "Adaptive federated optimization", 2021, algorithm 2). There is no
//! correction of the moments' bias, as there is none in the paper.

use crate::{
    Aggregator, Recipe, RunError, Setting, Settings, Step, Strip, Survey, recipe::by_samples,
    settings::real,
};

pub(super) const VECTORS: &[&str] = &["first_moment", "second_moment"];

pub(super) const SERVER_LR: Setting =
    real("server_lr", "the server's learning rate (eta)", 0.1, (0.0, 1e6));
pub(super) const BETA1: Setting =
    real("beta1", "how much of the first moment stays", 0.9, (0.0, 1.0));
pub(super) const BETA2: Setting =
    real("beta2", "how much of the second moment stays", 0.99, (0.0, 1.0));
pub(super) const TAU: Setting =
    real("tau", "degree of adaptivity; also where the second moment starts", 1e-3, (1e-12, 1e6));

/// How the second moment takes a squared difference in.
pub(super) type Second = fn(moment: f64, squared: f64, beta2: f64) -> f64;

#[derive(Clone, Copy)]
pub(super) struct Adaptive {
    server_lr: f64,
    beta1: f64,
    beta2: f64,
    tau: f64,
    second: Second,
}

impl Adaptive {
    pub(super) fn new(settings: &Settings, beta2: f64, second: Second) -> Self {
        let [server_lr, beta1, tau] = [SERVER_LR, BETA1, TAU].map(|it| settings.get(it.name));
        Self { server_lr, beta1, beta2, tau, second }
    }
}

impl Aggregator for Adaptive {
    fn recipe(&self, survey: &dyn Survey) -> Result<Recipe, RunError> {
        Recipe::stepped(by_samples(survey), *self)
    }
}

impl Step for Adaptive {
    fn vectors(&self) -> &'static [&'static str] {
        VECTORS
    }

    fn initial(&self, vector: usize) -> f64 {
        if vector == 0 { 0.0 } else { self.tau * self.tau }
    }

    fn apply(&self, strip: Strip<'_>) {
        let [first, second] = strip.state else { unreachable!("there are two vectors") };
        let moments = first.iter_mut().zip(second);
        for ((x, delta), (m, v)) in strip.model.iter_mut().zip(strip.delta).zip(moments) {
            *m = self.beta1 * *m + (1.0 - self.beta1) * delta;
            *v = (self.second)(*v, delta * delta, self.beta2);
            *x += self.server_lr * *m / (v.sqrt() + self.tau);
        }
    }
}
