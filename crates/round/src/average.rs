//! The average of a closed round: from what was kept of its members to what the machine is told.
//! Whoever drives the machine calls this one function, so that what is simulated is what ships.

use aggregate::{AggregateError, Strategy, Update};
use protocol::{FailReason, Tensors};

use crate::{Job, Report};

/// Carries [`Effect::Aggregate`](crate::Effect::Aggregate) out, on whatever thread and in whatever
/// time: it takes as long as the numbers are many.
pub fn average(strategy: &Strategy, job: &Job) -> Report {
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
