//! What a strategy needs to be told of an update, and where an update says it: in its metrics.

use std::collections::BTreeMap;

use aggregate::Need;
use protocol::{Rejection, message::StrategySpec};

use crate::Objection;

/// The loss of the base model on the sender's data, before training.
const LOSS: &str = "loss_before";
/// Local steps of descent.
const STEPS: &str = "steps";
/// More steps than this nobody takes; up to here they are whole as an `f64`.
const STEPS_MAX: f64 = (1_u64 << 53) as f64;

/// Whether an update with these metrics can be used by the strategy. It is found out before the
/// update counts, so that no round fails for one that cannot.
pub(crate) fn check(
    strategy: &StrategySpec,
    metrics: &BTreeMap<String, f64>,
) -> Result<(), Objection> {
    let needs = aggregate::find(&strategy.name).map_or(&[][..], |strategy| strategy.needs);
    let unusable = |name: &str, takes: &str| {
        let found = metrics.get(name).map_or("nothing".to_owned(), ToString::to_string);
        let strategy = &strategy.name;
        let what = format!("strategy {strategy} needs the metric {name:?}, {takes}, not {found}");
        Err(Objection::new(Rejection::Unusable, what))
    };
    for need in needs {
        match need {
            Need::Loss if loss(metrics).is_none() => return unusable(LOSS, "at least 0"),
            Need::Steps if steps(metrics).is_none() => {
                return unusable(STEPS, "a whole number of at least 1");
            }
            Need::Base | Need::Loss | Need::Steps | Need::Controls => {}
        }
    }
    Ok(())
}

pub(crate) fn loss(metrics: &BTreeMap<String, f64>) -> Option<f64> {
    metrics.get(LOSS).copied().filter(|loss| loss.is_finite() && *loss >= 0.0)
}

pub(crate) fn steps(metrics: &BTreeMap<String, f64>) -> Option<u64> {
    let steps = metrics.get(STEPS).copied();
    let steps = steps.filter(|it| (1.0..=STEPS_MAX).contains(it) && it.fract() == 0.0);
    steps.map(|steps| steps as u64)
}
