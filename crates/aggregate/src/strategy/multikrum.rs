//! MultiKrum: the mean of the updates that Krum scores best.
//!
//! The `m` updates of least score, averaged alike (Blanchard et al., "Machine learning with
//! adversaries: Byzantine tolerant gradient descent", 2017, section 4, m-Krum with scores taken
//! once). The paper's choice is `m = n - f - 2`. Samples do not count: they are only claimed.

use super::{
    Strategy,
    krum::{BYZANTINE_SHARE, Race, hostile},
};
use crate::{Aggregator, Center, Recipe, RunError, Setting, Settings, Survey, settings::whole};

const SETTINGS: &[Setting] = &[
    BYZANTINE_SHARE,
    whole("keep", "updates to average (m); 0 for all but the hostile and two", 0, (0, u32::MAX)),
];

pub(super) const STRATEGY: Strategy = Strategy {
    name: "multikrum",
    summary: "mean of the updates nearest to their neighbours",
    settings: SETTINGS,
    vectors: &[],
    needs: &[],
    build: || with(&Settings::defaults(SETTINGS)),
    with,
};

fn with(settings: &Settings) -> Box<dyn Aggregator> {
    let byzantine_share = settings.get(BYZANTINE_SHARE.name);
    Box::new(MultiKrum { byzantine_share, keep: settings.whole("keep") })
}

struct MultiKrum {
    byzantine_share: f64,
    keep: usize,
}

impl Aggregator for MultiKrum {
    fn recipe(&self, survey: &dyn Survey) -> Result<Recipe, RunError> {
        let count = survey.facts().len();
        let hostile = hostile(self.byzantine_share, count, count.saturating_sub(3) / 2);
        let keep = match self.keep {
            0 => count.saturating_sub(hostile + 2).max(1),
            keep => keep.min(count),
        };
        let mut weights = vec![0; count];
        for winner in Race::new(survey, hostile)?.best(keep)? {
            weights[winner] = 1;
        }
        Recipe::of(Center::Mean(weights))
    }
}
