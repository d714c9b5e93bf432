//! The average of a closed round: from what was kept of its members to what the machine is told.
//! Whoever drives the machine calls this one function, so that what is simulated is what ships.

use aggregate::{
    AggregateError, Aggregator, Facts, Guard, LeBytes, Round, RunError, STRATEGIES, Slices,
    Strategy, Work, aggregate_in_memory, find,
};
use protocol::{DType, FailReason, Tensors, message::StrategySpec};

use crate::{Job, JobMember, Kept, Made, Report};

/// Carries [`Effect::Aggregate`](crate::Effect::Aggregate) out where all updates are in memory, on
/// whatever thread and in whatever time: it takes as long as the numbers are many. A model of
/// 32-bit floats is summed exactly and rounded once to them, any other to 64 bits, and from there
/// to its own types.
pub fn average(strategy: &Strategy, job: &Job, work: &Work) -> Report {
    let aggregator = match aggregator(strategy, job.strategy.as_ref()) {
        Ok(aggregator) => aggregator,
        Err(error) => {
            let (round, reason) = (job.round.clone(), FailReason::Aggregation);
            return Report::AggregationFailed { round, reason, error };
        }
    };
    let made = match job.schema.dtype() {
        Some(DType::F32) => of_singles(&*aggregator, job, work),
        Some(DType::F64 | DType::F16 | DType::BF16 | DType::I8) | None => {
            of_doubles(&*aggregator, job, work)
        }
    };
    let round = job.round.clone();
    match made {
        Ok(tensors) => Report::Aggregated { round, model: Made::Here(tensors) },
        Err((reason, error)) => Report::AggregationFailed { round, reason, error },
    }
}

type Failed = (FailReason, String);

fn of_singles(aggregator: &dyn Aggregator, job: &Job, work: &Work) -> Result<Tensors, Failed> {
    let bytes = |member| match here(member) {
        Ok(bytes) => Ok(&bytes[..]),
        Err(why) => Err((FailReason::Aggregation, why)),
    };
    let rows: Vec<&[u8]> = job.members.iter().map(bytes).collect::<Result<_, _>>()?;
    let rows = LeBytes::new(&rows).map_err(|why| failed(&why.into()))?;
    let facts = facts(job);
    let round: Round<'_, f32> = Round::new(&rows, &facts);
    let made = aggregate_in_memory(aggregator, &Guard::default(), &round, work);
    let made = made.map_err(|why| failed(&why))?;
    let bytes: Vec<u8> = made.weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    Tensors::from_canonical(&job.schema, &bytes.into())
        .map_err(|why| (FailReason::Aggregation, why.to_string()))
}

fn of_doubles(aggregator: &dyn Aggregator, job: &Job, work: &Work) -> Result<Tensors, Failed> {
    let aggregation = |why: String| (FailReason::Aggregation, why);
    let values = job.members.iter().map(|member| {
        let bytes = here(member)?;
        let tensors = Tensors::from_canonical(&job.schema, bytes).map_err(|why| why.to_string())?;
        Ok(tensors.flatten())
    });
    let values: Vec<Vec<f64>> = values.collect::<Result<_, _>>().map_err(aggregation)?;
    let rows: Vec<&[f64]> = values.iter().map(Vec::as_slice).collect();
    let rows = Slices::new(&rows).map_err(|why| failed(&why.into()))?;
    let facts = facts(job);
    let round = Round::new(&rows, &facts);
    let made = aggregate_in_memory(aggregator, &Guard::default(), &round, work);
    let made = made.map_err(|why| failed(&why))?;
    Tensors::unflatten(&job.schema, &made.weights).map_err(|why| aggregation(why.to_string()))
}

/// What makes the model: as the round's start asks, else `default`.
pub fn aggregator(
    default: &Strategy,
    asked: Option<&StrategySpec>,
) -> Result<Box<dyn Aggregator>, String> {
    match asked {
        None => Ok((default.build)()),
        Some(spec) => configured(spec),
    }
}

/// Whether a round can be averaged in this way.
pub(crate) fn check_strategy(spec: &StrategySpec) -> Result<(), String> {
    configured(spec).map(drop)
}

fn configured(spec: &StrategySpec) -> Result<Box<dyn Aggregator>, String> {
    let name = &spec.name;
    let strategy = find(name).ok_or_else(|| {
        let names: Vec<&str> = STRATEGIES.iter().map(|strategy| strategy.name).collect();
        format!("strategy {name:?} is none of {}", names.join(", "))
    })?;
    if !strategy.vectors.is_empty() {
        return Err(format!("strategy {name} needs a memory of its own, which no round has yet"));
    }
    strategy.configured(&spec.params).map_err(|why| format!("strategy {name}: {why}"))
}

/// What a strategy is told of each member.
pub fn facts(job: &Job) -> Vec<Facts> {
    job.members.iter().map(|member| Facts::new(member.num_samples)).collect()
}

fn here(member: &JobMember) -> Result<&bytes::Bytes, String> {
    match &member.values {
        Kept::Here(bytes) => Ok(bytes),
        Kept::Stored(_) => Err(format!("the update of {} is not in memory", member.proplet)),
    }
}

/// Why there is no average, in the words of the wire.
pub fn failed(why: &RunError) -> (FailReason, String) {
    let reason = match why {
        RunError::Refused(
            AggregateError::NotFinite { .. } | AggregateError::ResultNotFinite { .. },
        ) => FailReason::NotFinite,
        RunError::Refused(_) | RunError::Read { .. } | RunError::Write { .. } => {
            FailReason::Aggregation
        }
    };
    let cause = std::error::Error::source(why).map(|cause| format!(": {cause}"));
    (reason, format!("{why}{}", cause.unwrap_or_default()))
}
