//! What came of a run.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::{Digest, FailReason, ModelVersion, RoundId};
use serde::Serialize;

/// The result of a run: the same for the same scenario and seed, wherever it runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    pub rounds: Vec<RoundSummary>,
    /// Versions that the model server has written, with what they are.
    pub versions: BTreeMap<ModelVersion, Digest>,
    /// The models as they travel.
    pub models: BTreeMap<ModelVersion, Bytes>,
    /// Values over virtual time, by name.
    pub metrics: BTreeMap<String, Vec<Sample>>,
    pub trace_sha256: String,
    /// Events in the trace.
    pub events: u64,
    /// Where virtual time stood at the end.
    pub virtual_us: u64,
    /// Outside nodes that were lost on the way.
    pub lost_nodes: Vec<crate::PeerError>,
    /// What each node that has a battery used, in joules.
    pub energy_j: BTreeMap<String, f64>,
}

/// One round that the operator asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoundSummary {
    pub round: RoundId,
    pub participants: usize,
    pub asked_us: u64,
    pub opened_us: Option<u64>,
    pub end: Option<RoundEnd>,
}

/// How a round ended, as its operator heard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoundEnd {
    pub heard_us: u64,
    pub outcome: RoundOutcome,
    pub num_updates: usize,
}

/// What a round made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RoundOutcome {
    Complete { version: ModelVersion, total_samples: u64 },
    Failed { reason: FailReason },
}

/// A value at a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    pub time_us: u64,
    pub value: f64,
}

impl Summary {
    /// Rounds that made a model.
    pub fn rounds_complete(&self) -> usize {
        let outcomes = self.rounds.iter().filter_map(|round| round.end.as_ref());
        outcomes.filter(|end| matches!(end.outcome, RoundOutcome::Complete { .. })).count()
    }

    /// One more of what is counted under a name.
    pub(crate) fn count(&mut self, name: &str, time_us: u64) {
        let before = self.metrics.get(name).and_then(|samples| samples.last());
        let before = before.map_or(0.0, |sample| sample.value);
        self.sample(name, time_us, before + 1.0);
    }

    pub(crate) fn sample(&mut self, name: &str, time_us: u64, value: f64) {
        let sample = Sample { time_us, value };
        match self.metrics.get_mut(name) {
            Some(samples) => samples.push(sample),
            None => drop(self.metrics.insert(name.to_owned(), vec![sample])),
        }
    }
}
