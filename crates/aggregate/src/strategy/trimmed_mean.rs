//! Coordinate-wise trimmed mean: without the least and the greatest values of each weight.
//!
//! The mean of the values between the `b` least and the `b` greatest, `b = floor(share * n)` (Yin
//! et al., "Byzantine-robust distributed learning: towards optimal statistical rates", 2018,
//! definition 2). Samples do not count: they are only claimed.

use super::Strategy;
use crate::{Aggregator, Center, Recipe, RunError, Setting, Settings, Survey, settings::real};

const SETTINGS: &[Setting] =
    &[real("trim_share", "share that is cut at each end (beta)", 0.2, (0.0, 0.499))];

pub(super) const STRATEGY: Strategy = Strategy {
    name: "trimmed_mean",
    summary: "mean of each weight without its extremes; holds while a share is hostile",
    settings: SETTINGS,
    vectors: &[],
    needs: &[],
    build: || with(&Settings::defaults(SETTINGS)),
    with,
};

fn with(settings: &Settings) -> Box<dyn Aggregator> {
    Box::new(TrimmedMean { trim_share: settings.get("trim_share") })
}

struct TrimmedMean {
    trim_share: f64,
}

impl Aggregator for TrimmedMean {
    fn recipe(&self, survey: &dyn Survey) -> Result<Recipe, RunError> {
        let cut = (self.trim_share * survey.facts().len() as f64) as usize;
        Recipe::of(Center::Trimmed { cut })
    }
}
