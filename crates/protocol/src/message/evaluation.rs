//! What an evaluation is asked for, and what it finds: how well a model does where it is used.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::PropletId;

/// The environment variable that tells a workload to evaluate; a workload that trains has none.
pub const PURPOSE_ENV: &str = "PURPOSE";

/// What a round is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Its updates become a model.
    #[default]
    Train,
    /// Its updates hold metrics and no tensors; no model comes of it.
    Evaluate,
}

/// How one metric is spread over those who reported it. Between two values the line is straight.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    pub min: f64,
    pub p10: f64,
    pub p25: f64,
    pub median: f64,
    pub p75: f64,
    pub p90: f64,
    pub max: f64,
    /// Means of the lowest and of the highest tenth, of at least one value: the worst decile is the
    /// one of an accuracy, and the other of a loss.
    pub lowest_decile_mean: f64,
    pub highest_decile_mean: f64,
}

/// How often a session evaluates its model, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateSpec {
    /// After each so many new models, at least 1.
    #[serde(deserialize_with = "every")]
    pub every: u64,
    /// Who evaluates on its own data; everybody who could be asked by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participants: Option<Evaluators>,
    /// A proplet that evaluates too, on a held-out set that belongs to no device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub central: Option<PropletId>,
}

/// Who evaluates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Evaluators {
    /// So many, by lot; with none the evaluation is the central one alone.
    Count(usize),
    These(BTreeSet<PropletId>),
}

impl Purpose {
    /// Whether it is the usual one, which nobody has to say.
    pub const fn is_train(&self) -> bool {
        matches!(self, Self::Train)
    }

    /// The value of [`PURPOSE_ENV`], for what is not the usual.
    pub const fn env(self) -> Option<&'static str> {
        match self {
            Self::Train => None,
            Self::Evaluate => Some("evaluate"),
        }
    }
}

impl Quantiles {
    /// Of finite numbers; none of nothing. Linear between neighbours: Hyndman and Fan, "Sample
    /// quantiles in statistical packages", 1996, definition 7.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (first, last) = (*values.first()?, *values.last()?);
        let at = |share: f64| {
            let place = share * (values.len() - 1) as f64;
            let (low, part) = (place.floor(), place.fract());
            let low = low as usize;
            let high = (low + 1).min(values.len() - 1);
            let (low, high) = (values[low], values[high]);
            // Rounding must not lead out of the interval, nor a difference to infinity.
            (low * (1.0 - part) + high * part).clamp(low, high)
        };
        let tenth = values.len().div_ceil(10);
        // Divided first: the sum of finite numbers may be none.
        let mean = |part: &[f64]| part.iter().map(|value| value / part.len() as f64).sum();
        Some(Self {
            min: first,
            p10: at(0.1),
            p25: at(0.25),
            median: at(0.5),
            p75: at(0.75),
            p90: at(0.9),
            max: last,
            lowest_decile_mean: mean(&values[..tenth]),
            highest_decile_mean: mean(&values[values.len() - tenth..]),
        })
    }
}

fn every<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        0 => Err(D::Error::custom("evaluate.every takes 1 or more, not 0")),
        every => Ok(every),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_numpy() {
        let values = (1..=20).rev().map(f64::from).collect();
        let found = Quantiles::of(values).unwrap();
        assert_eq!((found.min, found.median, found.max), (1.0, 10.5, 20.0));
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(found.p10, 2.9) && near(found.p90, 18.1), "{found:?}");
        assert!(near(found.p25, 5.75) && near(found.p75, 15.25), "{found:?}");
        assert!(near(found.lowest_decile_mean, 1.5) && near(found.highest_decile_mean, 19.5));
    }

    #[test]
    fn few_and_huge_values_have_finite_quantiles() {
        assert_eq!(Quantiles::of(vec![]), None);
        let one = Quantiles::of(vec![0.5]).unwrap();
        assert_eq!((one.p10, one.p90, one.lowest_decile_mean), (0.5, 0.5, 0.5));
        let huge = Quantiles::of(vec![f64::MAX, -f64::MAX, f64::MAX]).unwrap();
        assert!(huge.p25.is_finite() && huge.highest_decile_mean.is_finite(), "{huge:?}");
    }

    #[test]
    fn an_evaluation_every_0_rounds_is_refused() {
        let said = serde_json::from_str::<EvaluateSpec>(r#"{"every":0}"#).unwrap_err().to_string();
        assert!(said.contains("evaluate.every") && said.contains('0'), "{said}");
        let spec: EvaluateSpec = serde_json::from_str(r#"{"every":2,"participants":5}"#).unwrap();
        assert_eq!(spec.participants, Some(Evaluators::Count(5)));
        let spec: EvaluateSpec =
            serde_json::from_str(r#"{"every":2,"participants":["a","b"],"central":"c"}"#).unwrap();
        assert!(matches!(spec.participants, Some(Evaluators::These(names)) if names.len() == 2));
    }
}
