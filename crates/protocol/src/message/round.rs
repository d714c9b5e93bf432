//! What the coordinator and the manager say about a round.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    AbsentReason, FailReason, Letter, ModelUri, ModelVersion, PropletId, Rejection, RoundId,
    Timestamp, Topic,
    message::{Purpose, Quantiles},
};

/// The coordinator has taken the round on, durably; repeated when the same start is repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundOpened {
    pub round_id: RoundId,
    pub model_uri: ModelUri,
    pub participants: usize,
    pub k_of_n: usize,
    pub deadline: Timestamp,
}

/// The round made exactly this model; or, of an evaluation, this is how its base model does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundComplete {
    pub round_id: RoundId,
    pub model_version: ModelVersion,
    pub model_topic: ModelUri,
    pub num_updates: usize,
    pub total_samples: u64,
    pub completed_at: Timestamp,
    /// From the opening of the round to its closing.
    #[serde(default)]
    pub duration_ms: u64,
    /// Whose updates were counted.
    #[serde(default)]
    pub participants: Vec<PropletId>,
    /// Means of the metrics that the counted updates carried, weighted by samples.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// What each counted update brought; left out where there are more than a thousand.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contributions: BTreeMap<PropletId, Contribution>,
    /// How many updates were rejected, by reason.
    #[serde(default)]
    pub rejected: BTreeMap<Rejection, u64>,
    #[serde(default, skip_serializing_if = "Purpose::is_train")]
    pub purpose: Purpose,
    /// Of an evaluation: how each metric is spread over the participants.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quantiles: BTreeMap<String, Quantiles>,
    /// How many of the counted updates came from participants of earlier rounds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub late: usize,
    /// Who was asked, in this round or in one before it, and may count in the rounds to come.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub outstanding: BTreeSet<PropletId>,
}

/// What one counted update brought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    pub num_samples: u64,
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
}

/// The round made no model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundFailed {
    pub round_id: RoundId,
    pub reason: FailReason,
    pub num_updates: usize,
    pub k_of_n: usize,
    pub failed_at: Timestamp,
    /// What exactly was wrong, where there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// As in [`RoundComplete`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub outstanding: BTreeSet<PropletId>,
}

/// A participant will not contribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundAbsent {
    pub round_id: RoundId,
    pub proplet_id: PropletId,
    pub reason: AbsentReason,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Letter for RoundOpened {
    fn topic(&self) -> Topic {
        Topic::RoundOpened { round: self.round_id.clone() }
    }
}

impl Letter for RoundComplete {
    fn topic(&self) -> Topic {
        Topic::RoundComplete { round: self.round_id.clone() }
    }
}

impl Letter for RoundFailed {
    fn topic(&self) -> Topic {
        Topic::RoundFailed { round: self.round_id.clone() }
    }
}

impl Letter for RoundAbsent {
    fn topic(&self) -> Topic {
        Topic::RoundAbsent { round: self.round_id.clone() }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}
