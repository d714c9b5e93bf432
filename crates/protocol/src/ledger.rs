//! The one-hot ledger: judges a run of federated averaging from its published model alone.
//!
//! Member *i* submits a model that is 1 at position *i* and 0 elsewhere, with a sample count of its
//! own (distinct primes are best). Afterwards `model[i] * total_samples` is its sample count if it
//! was counted once, 0 if it was not, twice its count if it was counted twice; anything else is
//! damage, and anything at a position that nobody owns is forged. Positions are those of
//! [`Tensors::flatten`]. Exact as long as all samples together stay below 2^40.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{Schema, Tensors};

/// Rounding of one division and one multiplication is far below this, a miscount far above.
const TOLERANCE: f64 = 1e-3;

/// One who submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its position among the flattened values.
    pub index: usize,
    pub num_samples: u64,
    pub standing: Standing,
}

/// What the member has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its update was accepted: it must be counted.
    Accepted,
    /// Its update was rejected, or never sent: it must not be counted.
    Refused,
    /// It heard nothing: it may be counted, but only once.
    Unheard,
}

/// What the round's completion claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub num_updates: usize,
    pub total_samples: u64,
}

/// One way in which a published model is wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Violation {
    /// Accepted, and not in the model.
    Lost { index: usize },
    /// In the model more than once.
    Repeated { index: usize, times: u64 },
    /// Refused, and in the model all the same.
    Smuggled { index: usize },
    /// A position that belongs to nobody is not zero.
    Forged { index: usize, value: f64 },
    /// Not a whole multiple of what the member submitted.
    Corrupt { index: usize, value: f64 },
    /// The member has no position in the model.
    NoPlace { index: usize },
    /// The completion claims another number of updates than the model holds.
    Updates { claimed: usize, counted: usize },
    /// The completion claims other samples than the model holds.
    Samples { claimed: u64, counted: u64 },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { index } => write!(f, "member {index} was accepted and is lost"),
            Self::Repeated { index, times } => write!(f, "member {index} counts {times} times"),
            Self::Smuggled { index } => write!(f, "member {index} was refused and counts"),
            Self::Forged { index, value } => write!(f, "position {index} is forged: {value}"),
            Self::Corrupt { index, value } => write!(f, "position {index} is corrupt: {value}"),
            Self::NoPlace { index } => write!(f, "member {index} has no position in the model"),
            Self::Updates { claimed, counted } => {
                write!(f, "{claimed} updates are claimed, {counted} are counted")
            }
            Self::Samples { claimed, counted } => {
                write!(f, "{claimed} samples are claimed, {counted} are counted")
            }
        }
    }
}

/// What member `index` submits: `None` if the schema has no such position.
pub fn one_hot(schema: &Schema, index: usize) -> Option<Tensors> {
    let mut values = vec![0.0; schema.parameters()];
    *values.get_mut(index)? = 1.0;
    Tensors::unflatten(schema, &values).ok()
}

/// Holds a published model against what its members submitted. Returns who was counted, or
/// everything that is wrong.
pub fn check(
    members: &[Member],
    model: &Tensors,
    claim: Claim,
) -> Result<BTreeSet<usize>, Vec<Violation>> {
    let values = model.flatten();
    let owners: BTreeMap<usize, &Member> = members.iter().map(|m| (m.index, m)).collect();
    let mut violations: Vec<Violation> = owners
        .keys()
        .filter(|index| **index >= values.len())
        .map(|index| Violation::NoPlace { index: *index })
        .collect();
    let mut counted = BTreeSet::new();
    for (index, value) in values.into_iter().enumerate() {
        let owner = owners.get(&index).copied();
        match judge(index, value, owner, claim.total_samples) {
            Ok(Counted::Once) => {
                counted.insert(index);
            }
            Ok(Counted::Not) => {}
            Err(violation) => violations.push(violation),
        }
    }
    violations.extend(disagreements(&counted, &owners, claim));
    if violations.is_empty() { Ok(counted) } else { Err(violations) }
}

enum Counted {
    Once,
    Not,
}

fn judge(
    index: usize,
    value: f64,
    owner: Option<&Member>,
    total_samples: u64,
) -> Result<Counted, Violation> {
    let Some(member) = owner else {
        let clean = value == 0.0;
        return if clean { Ok(Counted::Not) } else { Err(Violation::Forged { index, value }) };
    };
    let own = member.num_samples.max(1);
    let samples = value * total_samples as f64;
    let whole = samples.round();
    let is_whole = (samples - whole).abs() <= TOLERANCE;
    if !is_whole || whole < 0.0 || !(whole as u64).is_multiple_of(own) {
        return Err(Violation::Corrupt { index, value });
    }
    match (whole as u64 / own, member.standing) {
        (0, Standing::Accepted) => Err(Violation::Lost { index }),
        (0, Standing::Refused | Standing::Unheard) => Ok(Counted::Not),
        (1, Standing::Refused) => Err(Violation::Smuggled { index }),
        (1, Standing::Accepted | Standing::Unheard) => Ok(Counted::Once),
        (times, Standing::Accepted | Standing::Refused | Standing::Unheard) => {
            Err(Violation::Repeated { index, times })
        }
    }
}

fn disagreements(
    counted: &BTreeSet<usize>,
    owners: &BTreeMap<usize, &Member>,
    claim: Claim,
) -> Vec<Violation> {
    let mut found = vec![];
    if claim.num_updates != counted.len() {
        let counted = counted.len();
        found.push(Violation::Updates { claimed: claim.num_updates, counted });
    }
    let samples = counted.iter().map(|index| owners[index].num_samples).sum();
    if claim.total_samples != samples {
        found.push(Violation::Samples { claimed: claim.total_samples, counted: samples });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    fn model(values: &[f64]) -> Tensors {
        [("w".to_owned(), Tensor::new(vec![values.len()], values.to_vec()).unwrap())]
            .into_iter()
            .collect()
    }

    fn members() -> Vec<Member> {
        let standing = [Standing::Accepted, Standing::Unheard, Standing::Refused];
        [3, 5, 7]
            .into_iter()
            .zip(standing)
            .enumerate()
            .map(|(index, (num_samples, standing))| Member { index, num_samples, standing })
            .collect()
    }

    fn verdict(values: &[f64], num_updates: usize, total_samples: u64) -> Vec<Violation> {
        check(&members(), &model(values), Claim { num_updates, total_samples })
            .err()
            .unwrap_or_default()
    }

    #[test]
    fn an_exact_model_passes_and_says_who_counts() {
        let claim = Claim { num_updates: 2, total_samples: 8 };
        let counted = check(&members(), &model(&[3.0 / 8.0, 5.0 / 8.0, 0.0, 0.0]), claim);
        assert_eq!(counted, Ok([0, 1].into()));
        let alone = Claim { num_updates: 1, total_samples: 3 };
        assert_eq!(check(&members(), &model(&[1.0, 0.0, 0.0]), alone), Ok([0].into()));
    }

    #[test]
    fn every_kind_of_fraud_is_named() {
        assert!(verdict(&[0.0, 1.0, 0.0], 1, 5).contains(&Violation::Lost { index: 0 }));
        let twice = Violation::Repeated { index: 0, times: 2 };
        assert!(verdict(&[6.0 / 11.0, 5.0 / 11.0, 0.0], 2, 11).contains(&twice));
        let smuggled = Violation::Smuggled { index: 2 };
        assert!(verdict(&[0.3, 0.0, 0.7], 2, 10).contains(&smuggled));
        let forged = Violation::Forged { index: 3, value: 0.5 };
        assert!(verdict(&[1.0, 0.0, 0.0, 0.5], 1, 3).contains(&forged));
        let corrupt = Violation::Corrupt { index: 0, value: 0.9 };
        assert!(verdict(&[0.9, 0.0, 0.0], 1, 3).contains(&corrupt));
        assert!(matches!(verdict(&[f64::NAN, 0.0, 0.0], 1, 3)[0], Violation::Corrupt { .. }));
        assert!(verdict(&[1.0, 0.0], 1, 3).contains(&Violation::NoPlace { index: 2 }));
        let updates = Violation::Updates { claimed: 2, counted: 1 };
        assert_eq!(verdict(&[1.0, 0.0, 0.0], 2, 3), [updates]);
        assert!(verdict(&[1.0, 0.0, 0.0], 1, 6).len() >= 2);
    }

    #[test]
    fn one_hot_lands_on_its_position() {
        let schema = model(&[0.0; 3]).schema();
        assert_eq!(one_hot(&schema, 1).unwrap().flatten(), [0.0, 1.0, 0.0]);
        assert_eq!(one_hot(&schema, 3), None);
    }
}
