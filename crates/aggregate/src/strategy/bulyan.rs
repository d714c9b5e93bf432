//! Bulyan: Krum chooses again and again, then each weight is averaged around its median.
//!
//! With up to `f` of `n` hostile, Krum is asked `theta = n - 2 f` times, each time without those
//! chosen before; then each weight is the mean of the `theta - 2 f` chosen values nearest to their
//! median (El Mhamdi et al., "The hidden vulnerability of distributed learning in Byzantium",
//! 2018, section 4). The paper asks for `4 f + 3 <= n`: `f` is the given share of `n`, or as much
//! of it as that allows. Samples do not count: they are only claimed.

use super::{
    Strategy,
    krum::{BYZANTINE_SHARE, Race, hostile},
};
use crate::{Aggregator, Center, Recipe, RunError, Setting, Settings, Survey};

const SETTINGS: &[Setting] = &[BYZANTINE_SHARE];

pub(super) const STRATEGY: Strategy = Strategy {
    name: "bulyan",
    summary: "repeated Krum, then a mean around the median; holds while a quarter are hostile",
    settings: SETTINGS,
    vectors: &[],
    needs: &[],
    build: || with(&Settings::defaults(SETTINGS)),
    with,
};

fn with(settings: &Settings) -> Box<dyn Aggregator> {
    Box::new(Bulyan { byzantine_share: settings.get(BYZANTINE_SHARE.name) })
}

struct Bulyan {
    byzantine_share: f64,
}

impl Aggregator for Bulyan {
    fn recipe(&self, survey: &dyn Survey) -> Result<Recipe, RunError> {
        let count = survey.facts().len();
        let hostile = hostile(self.byzantine_share, count, count.saturating_sub(3) / 4);
        let mut race = Race::new(survey, hostile)?;
        let chosen = count - 2 * hostile;
        let updates = (0..chosen).map(|_| race.next()).collect::<Result<Vec<_>, _>>()?;
        Recipe::of(Center::NearMedian { updates, keep: chosen - 2 * hostile })
    }
}
