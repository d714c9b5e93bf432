//! What the coordinator does beside speaking: the real aggregation, for as long as its device
//! takes.

use aggregate::{AggregateError, Strategy, Update};
use protocol::{FailReason, Tensors};
use round::{Effect, Job, Report};

use super::{Act, Acts, Mail, Notes, note};

/// Averages.
#[derive(Debug)]
pub(crate) struct Averaging {
    pub(crate) strategy: &'static Strategy,
    /// What one weight of one update costs.
    pub(crate) ns_per_weight: f64,
}

impl Averaging {
    pub(super) fn perform(&self, effect: Effect, notes: Notes, acts: &mut Acts) {
        match effect {
            Effect::Aggregate(job) => {
                let weights = job.schema.parameters() as f64 * job.members.len() as f64;
                let after_us = 1 + (weights * self.ns_per_weight.max(0.0) / 1e3) as u64;
                let mail = Mail::Round(average(self.strategy, &job));
                acts.push(Act::Tell { after_us, mail });
            }
            Effect::Note(said) => note(notes, acts, || format!("{said:?}")),
        }
    }
}

fn average(strategy: &Strategy, job: &Job) -> Report {
    let round = job.round.clone();
    let values: Vec<Vec<f64>> = job.members.iter().map(|member| member.values.values()).collect();
    let updates: Vec<Update<'_>> = values
        .iter()
        .zip(&job.members)
        .map(|(weights, member)| Update { weights, num_samples: member.num_samples })
        .collect();
    let failed = |reason, error| Report::AggregationFailed { round: round.clone(), reason, error };
    match aggregate::run(&*(strategy.build)(), &updates) {
        Ok(weights) => match Tensors::unflatten(&job.schema, &weights) {
            Ok(tensors) => Report::Aggregated { round, tensors },
            Err(why) => failed(FailReason::Aggregation, why.to_string()),
        },
        Err(why) => failed(reason(&why), why.to_string()),
    }
}

const fn reason(why: &AggregateError) -> FailReason {
    match why {
        AggregateError::NotFinite { .. } | AggregateError::ResultNotFinite { .. } => {
            FailReason::NotFinite
        }
        AggregateError::Empty
        | AggregateError::Shape { .. }
        | AggregateError::ZeroSamples { .. }
        | AggregateError::TooManySamples { .. }
        | AggregateError::SamplesOverflow { .. } => FailReason::Aggregation,
    }
}
