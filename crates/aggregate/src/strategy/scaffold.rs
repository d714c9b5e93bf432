//! SCAFFOLD: control variates take the drift of the participants out.
//!
//! `x = x + lr / |S| * sum(w_i - x)`, `c = c + |S| / N * mean(c_i' - c_i)` (Karimireddy et al.,
//! "SCAFFOLD: stochastic controlled averaging for federated learning", 2020, algorithm 1, lines 16
//! and 17). Each update brings the row `c_i' - c_i`; `c` is the state's vector `control`, which the
//! participants are to be given with the model.

use super::{Need, Strategy};
use crate::{
    Aggregator, Center, Recipe, RunError, Setting, Settings, Step, Strip, Survey,
    settings::{real, whole},
};

const SETTINGS: &[Setting] = &[
    real("server_lr", "the server's learning rate (eta_g)", 1.0, (0.0, 1e6)),
    whole("population", "all who may take part (N); 0 for those who did", 0, (0, u32::MAX)),
];

const VECTORS: &[&str] = &["control"];

pub(super) const STRATEGY: Strategy = Strategy {
    name: "scaffold",
    summary: "mean, with control variates against the drift of the participants",
    settings: SETTINGS,
    vectors: VECTORS,
    needs: &[Need::Base, Need::Controls],
    build: || with(&Settings::defaults(SETTINGS)),
    with,
};

fn with(settings: &Settings) -> Box<dyn Aggregator> {
    Box::new(Scaffold {
        server_lr: settings.get("server_lr"),
        population: settings.whole("population"),
    })
}

struct Scaffold {
    server_lr: f64,
    population: usize,
}

impl Aggregator for Scaffold {
    fn recipe(&self, survey: &dyn Survey) -> Result<Recipe, RunError> {
        survey.need_controls()?;
        let count = survey.facts().len();
        let present = count as f64 / self.population.max(count) as f64;
        let step = Controlled { server_lr: self.server_lr, present };
        Recipe::stepped(Center::Mean(vec![1; count]), step)
    }
}

struct Controlled {
    server_lr: f64,
    /// `|S| / N`.
    present: f64,
}

impl Step for Controlled {
    fn vectors(&self) -> &'static [&'static str] {
        VECTORS
    }

    fn apply(&self, strip: Strip<'_>) {
        for (x, delta) in strip.model.iter_mut().zip(strip.delta) {
            *x += self.server_lr * delta;
        }
        for (control, change) in strip.state[0].iter_mut().zip(strip.control) {
            *control += self.present * change;
        }
    }
}
