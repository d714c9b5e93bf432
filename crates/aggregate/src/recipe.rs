//! What a strategy decides: which combination of the updates, and what the server does with it.
//!
//! A strategy sees facts, norms and distances, never weights; it answers with a recipe. The recipe
//! is carried out block by block by [`crate::aggregate`], for any element type.

use crate::{AggregateError, RunError, ordered::Pick};

/// What is said of an update beside its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub num_samples: u64,
    /// The loss of the base model on the sender's data, before training.
    pub loss: Option<f64>,
    /// Model versions that were made since the one that the sender started from.
    pub staleness: u64,
    /// Local steps that were taken (tau of FedNova).
    pub steps: Option<u64>,
}

impl Facts {
    pub fn new(num_samples: u64) -> Self {
        Self { num_samples, loss: None, staleness: 0, steps: None }
    }
}

/// How a set of updates becomes one model.
///
/// The contract, which the conformance test holds every strategy in the list to: the result
/// depends on the set of the updates, never on their order, the threads or the blocks.
pub trait Aggregator: Send + Sync {
    fn recipe(&self, survey: &dyn Survey) -> Result<Recipe, RunError>;
}

/// What a strategy may ask about the updates. Each question but the first two reads them once.
pub trait Survey {
    /// Of each update, in their order.
    fn facts(&self) -> &[Facts];

    /// Refuses where the updates bring no control rows.
    fn need_controls(&self) -> Result<(), RunError>;

    /// Of these updates, that with the least content, element by element: the way to break a tie
    /// that does not depend on their order.
    fn first_of(&self, tied: &[usize]) -> Result<usize, RunError>;

    /// Squared distances of each two updates.
    fn distances(&self) -> Result<Distances, RunError>;

    /// Squared distance of each update from a center.
    fn distances_from(&self, center: &Center) -> Result<Vec<f64>, RunError>;
}

/// Squared distances of each two updates.
#[derive(Clone, Debug)]
pub struct Distances {
    pub(crate) squared: Vec<f64>,
}

impl Distances {
    pub fn squared(&self, a: usize, b: usize) -> f64 {
        match a.cmp(&b) {
            std::cmp::Ordering::Less => self.squared[crate::distance::pair(a, b)],
            std::cmp::Ordering::Equal => 0.0,
            std::cmp::Ordering::Greater => self.squared[crate::distance::pair(b, a)],
        }
    }
}

/// One vector that stands for the updates.
#[derive(Clone, Debug, PartialEq)]
pub enum Center {
    /// The mean, weighted so; updates without weight are left out.
    Mean(Vec<u64>),
    Median,
    /// Each coordinate's mean without so many of its least and of its greatest values.
    Trimmed {
        cut: usize,
    },
    /// Of these updates, each coordinate's mean of so many values nearest to their median.
    NearMedian {
        updates: Vec<usize>,
        keep: usize,
    },
    /// The model that the updates started from.
    Base,
}

impl Center {
    /// The updates that it is made of.
    pub(crate) fn members(&self, updates: usize) -> Vec<usize> {
        match self {
            Self::Mean(weights) => (0..updates).filter(|update| weights[*update] != 0).collect(),
            Self::Median | Self::Trimmed { .. } => (0..updates).collect(),
            Self::NearMedian { updates, .. } => updates.clone(),
            Self::Base => vec![],
        }
    }

    pub(crate) fn pick(&self) -> Option<Pick> {
        match self {
            Self::Mean(_) | Self::Base => None,
            Self::Median => Some(Pick::Median),
            Self::Trimmed { cut } => Some(Pick::Trimmed { cut: *cut }),
            Self::NearMedian { keep, .. } => Some(Pick::Nearest { keep: *keep }),
        }
    }
}

/// What becomes the new model: the center itself, or what a step makes of its difference from the
/// base model.
pub struct Recipe {
    pub center: Center,
    pub step: Option<Box<dyn Step>>,
}

impl std::fmt::Debug for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let vectors = self.step.as_ref().map(|step| step.vectors());
        f.debug_struct("Recipe").field("center", &self.center).field("step", &vectors).finish()
    }
}

impl Recipe {
    pub(crate) fn of(center: Center) -> Result<Self, RunError> {
        Ok(Self { center, step: None })
    }

    pub(crate) fn stepped(center: Center, step: impl Step + 'static) -> Result<Self, RunError> {
        Ok(Self { center, step: Some(Box::new(step)) })
    }
}

/// What a server does with the mean difference of the updates from their base, coordinate by
/// coordinate, in `f64`.
pub trait Step: Send + Sync {
    /// The named vectors that it remembers from round to round.
    fn vectors(&self) -> &'static [&'static str] {
        &[]
    }

    /// What a vector holds before the first round.
    fn initial(&self, _vector: usize) -> f64 {
        0.0
    }

    fn apply(&self, block: Strip<'_>);
}

/// A strip of coordinates. All slices are of one length.
#[derive(Debug)]
pub struct Strip<'a> {
    /// In: the base model. Out: the new one.
    pub model: &'a mut [f64],
    /// The center minus the base.
    pub delta: &'a [f64],
    /// Each of [`Step::vectors`], in and out.
    pub state: &'a mut [Vec<f64>],
    /// The mean of the updates' control rows; zeros where there are none.
    pub control: &'a [f64],
}

/// `model + rate * delta`, the plainest step.
pub(crate) struct Move {
    pub(crate) rate: f64,
}

impl Step for Move {
    fn apply(&self, block: Strip<'_>) {
        for (x, delta) in block.model.iter_mut().zip(block.delta) {
            *x += self.rate * delta;
        }
    }
}

/// Real weights as whole ones, in proportion to within `2^-42` of the greatest for any usual number
/// of updates. What is smaller than that counts as nothing.
pub(crate) fn whole_weights(
    what: &'static str,
    weights: &[f64],
) -> Result<Vec<u64>, AggregateError> {
    if let Some(index) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
        let found = weights[index].to_string();
        return Err(AggregateError::Fact { index, what, found });
    }
    let greatest = weights.iter().copied().fold(0.0, f64::max);
    if greatest == 0.0 {
        return Ok(vec![1; weights.len()]);
    }
    let unit = (1_u64 << 52) / (weights.len() as u64).next_power_of_two();
    Ok(weights.iter().map(|weight| (weight / greatest * unit as f64).round() as u64).collect())
}

/// The sum, of the least first, so that it depends on no order.
pub(crate) fn ordered_sum(mut terms: Vec<f64>) -> f64 {
    terms.sort_by(f64::total_cmp);
    terms.iter().sum()
}

/// How many times their median claims count for at most.
const CLAIM_MAX: f64 = 10.0;

/// What participants say of themselves, without the boasts: one of them must not decide how far
/// the model goes.
pub(crate) fn modest(mut claims: Vec<f64>) -> Vec<f64> {
    let mut sorted = claims.clone();
    sorted.sort_by(f64::total_cmp);
    let most = CLAIM_MAX * sorted.get(claims.len().saturating_sub(1) / 2).copied().unwrap_or(0.0);
    claims.iter_mut().for_each(|claim| *claim = claim.min(most));
    claims
}

/// The weights of a mean by samples.
pub(crate) fn by_samples(survey: &dyn Survey) -> Center {
    Center::Mean(survey.facts().iter().map(|facts| facts.num_samples).collect())
}
