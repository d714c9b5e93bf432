//! The average of a closed round: from what was kept of its members to what the machine is told.
//! Whoever drives the machine calls this one function, so that what is simulated is what ships.

use std::collections::BTreeMap;

use aggregate::{
    AggregateError, Aggregator, Element, Facts, Guarded, LeBytes, Rest, Round, Rows, RunError,
    STRATEGIES, Slices, Work, aggregate_in_memory, aggregate_rest, find, tempered,
};
use bytes::Bytes;
use protocol::{DType, FailReason, Rejection, Schema, Tensors, message::StrategySpec};

use crate::{Beside, Job, JobMember, Kept, Made, Report, State};

/// Carries [`Effect::Aggregate`](crate::Effect::Aggregate) out where everything is in memory, on
/// whatever thread and in whatever time: it takes as long as the numbers are many. A model of
/// 32-bit floats is summed exactly and rounded once to them, any other to 64 bits, and from there
/// to its own types.
pub fn average(job: &Job, work: &Work) -> Report {
    let made = aggregator(&job.strategy).map_err(|why| (FailReason::Aggregation, why));
    let made = made.and_then(|aggregator| match job.schema.dtype() {
        Some(DType::F32) => of_singles(&*aggregator, job, work),
        Some(DType::F64 | DType::F16 | DType::BF16 | DType::I8) | None => {
            of_doubles(&*aggregator, job, work)
        }
    });
    let round = job.round.clone();
    match made {
        Ok((tensors, beside)) => Report::Aggregated { round, model: Made::Here(tensors), beside },
        Err((reason, error)) => Report::AggregationFailed { round, reason, error },
    }
}

type Failed = (FailReason, String);

fn aggregation(why: impl ToString) -> Failed {
    (FailReason::Aggregation, why.to_string())
}

/// What each member has brought.
struct Brought {
    /// The canonical bytes of the model's tensors.
    learned: Vec<Bytes>,
    /// Those of the change of its control variate.
    control: Option<Vec<Bytes>>,
}

impl Brought {
    fn by(job: &Job) -> Result<Self, Failed> {
        let all = job.members.iter().map(|member| here(member).cloned().map_err(aggregation));
        if !job.strategy.has_control() {
            return Ok(Self { learned: all.collect::<Result<_, _>>()?, control: None });
        }
        let schema = job.member_schema();
        let (mut learned, mut control) = (vec![], vec![]);
        for bytes in all {
            let both = Tensors::from_canonical(&schema, &bytes?).map_err(aggregation)?;
            let (own, change) = both.split_control();
            learned.push(own.canonical());
            control.push(change.canonical());
        }
        Ok(Self { learned, control: Some(control) })
    }
}

fn of_singles(
    aggregator: &dyn Aggregator,
    job: &Job,
    work: &Work,
) -> Result<(Tensors, Beside), Failed> {
    let Brought { learned, control } = Brought::by(job)?;
    let rows = slices(&learned);
    let rows = LeBytes::new(&rows).map_err(|why| failed(&why.into()))?;
    let control = control.as_deref().map(slices);
    let control = control.as_ref().map(|rows| LeBytes::new(rows)).transpose();
    let control = control.map_err(|why| failed(&why.into()))?;
    let control = control.as_ref().map(|rows| rows as &dyn Rows<f32>);
    let base = base_bytes(job).map_err(aggregation)?;
    let base = base.as_ref().map(|base| [&base[..]]);
    let base = base.as_ref().map(|base| LeBytes::new(base)).transpose();
    let base = base.map_err(|why| failed(&why.into()))?;
    let base = base.as_ref().map(|base| base as &dyn Rows<f32>);
    let bases = bases(job)?;
    let bases: Vec<&[u8]> = bases.iter().map(|bytes| &bytes[..]).collect();
    let bases = LeBytes::new(&bases).map_err(|why| failed(&why.into()))?;
    let (weights, beside) = make(aggregator, job, (&rows, base, &bases, control), work)?;
    let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let tensors = Tensors::from_canonical(&job.schema, &bytes.into()).map_err(aggregation)?;
    Ok((tensors, beside))
}

fn of_doubles(
    aggregator: &dyn Aggregator,
    job: &Job,
    work: &Work,
) -> Result<(Tensors, Beside), Failed> {
    let flat_as = |schema: &Schema, bytes: &Bytes| {
        Tensors::from_canonical(schema, bytes).map(|it| it.flatten()).map_err(aggregation)
    };
    let flat = |bytes: &Bytes| flat_as(&job.schema, bytes);
    let Brought { learned, control } = Brought::by(job)?;
    let values: Vec<Vec<f64>> = learned.iter().map(flat).collect::<Result<_, _>>()?;
    let rows: Vec<&[f64]> = values.iter().map(Vec::as_slice).collect();
    let rows = Slices::new(&rows).map_err(|why| failed(&why.into()))?;
    let schema = job.schema.control();
    let control = control.unwrap_or_default();
    let control: Vec<Vec<f64>> =
        control.iter().map(|bytes| flat_as(&schema, bytes)).collect::<Result<_, _>>()?;
    let control: Vec<&[f64]> = control.iter().map(Vec::as_slice).collect();
    let control = Slices::new(&control).map_err(|why| failed(&why.into()))?;
    let control = (control.count() > 0).then_some(&control as &dyn Rows<f64>);
    let base = base_bytes(job).map_err(aggregation)?.map(flat).transpose()?;
    let base = base.as_ref().map(|base| [&base[..]]);
    let base = base.as_ref().map(|base| Slices::new(base)).transpose();
    let base = base.map_err(|why| failed(&why.into()))?;
    let base = base.as_ref().map(|base| base as &dyn Rows<f64>);
    let bases: Vec<Vec<f64>> = bases(job)?.into_iter().map(flat).collect::<Result<_, _>>()?;
    let bases: Vec<&[f64]> = bases.iter().map(Vec::as_slice).collect();
    let bases = Slices::new(&bases).map_err(|why| failed(&why.into()))?;
    let (weights, beside) = make(aggregator, job, (&rows, base, &bases, control), work)?;
    Ok((Tensors::unflatten(&job.schema, &weights).map_err(aggregation)?, beside))
}

fn slices(rows: &[Bytes]) -> Vec<&[u8]> {
    rows.iter().map(|bytes| &bytes[..]).collect()
}

/// The updates, the base model, that of each update where they differ, and the changes of the
/// control variates.
type Given<'a, T> =
    (&'a dyn Rows<T>, Option<&'a dyn Rows<T>>, &'a dyn Rows<T>, Option<&'a dyn Rows<T>>);

fn make<T: Element>(
    aggregator: &dyn Aggregator,
    job: &Job,
    (rows, base, bases, control): Given<'_, T>,
    work: &Work,
) -> Result<(Vec<T>, Beside), Failed> {
    let facts = facts(job);
    let state = state_rows::<T>(job)?;
    let state = LeBytes::new(&state).map_err(|why| failed(&why.into()))?;
    let mut round = Round::new(rows, &facts);
    round.base = base;
    round.bases = (bases.count() > 0).then_some(bases);
    let control = control.map(tempered).transpose().map_err(aggregation)?;
    round.controls = control.as_ref().map(|rows| rows as &dyn Rows<T>);
    round.state = (Rows::<T>::count(&state) > 0).then_some(&state);
    let rest = aggregate_rest(&round, work, |part| {
        aggregate_in_memory(aggregator, &job.guard, part, work)
    });
    let rest = rest.map_err(|why| failed(&why))?;
    let left_out = left_out(job, &rest, &rest.made.guarded);
    let vectors = rest.made.state.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut bytes = vec![];
    for (_, vector) in &rest.made.state {
        vector.iter().for_each(|value| value.put_le(&mut bytes));
    }
    let state = State { vectors, values: Kept::Here(bytes.into()) };
    let state = Some(state).filter(|state| !state.vectors.is_empty());
    Ok((rest.made.weights, Beside { state, left_out }))
}

/// The vectors of the state; none where there is no state, or one that the strategy cannot have
/// left.
fn state_rows<T: Element>(job: &Job) -> Result<Vec<&[u8]>, Failed> {
    let Some(state) = usable_state(job) else { return Ok(vec![]) };
    let Kept::Here(bytes) = &state.values else {
        return Err(aggregation("the state of the strategy is not in memory"));
    };
    let each = job.schema.parameters() * T::BYTES;
    if each == 0 || bytes.len() != each * state.vectors.len() {
        return Ok(vec![]);
    }
    Ok(bytes.chunks_exact(each).collect())
}

/// The state that the strategy goes on from: with the vectors that it knows.
pub fn usable_state(job: &Job) -> Option<&State> {
    let strategy = find(&job.strategy.name)?;
    let state = job.state.as_ref()?;
    let same = state.vectors.iter().map(String::as_str).eq(strategy.vectors.iter().copied());
    (same && !state.vectors.is_empty()).then_some(state)
}

/// The members that the model is not made of, and why.
pub fn left_out<M>(
    job: &Job,
    rest: &Rest<M>,
    guarded: &Guarded,
) -> BTreeMap<protocol::PropletId, Rejection> {
    let unusable = rest.unusable.iter().map(|place| (*place, Rejection::Unusable));
    let far = guarded.rejected.iter().map(|place| (rest.kept[*place], Rejection::TooFar));
    let name = |(place, reason): (usize, Rejection)| (job.members[place].proplet.clone(), reason);
    unusable.chain(far).map(name).collect()
}

/// What makes the model.
pub fn aggregator(asked: &StrategySpec) -> Result<Box<dyn Aggregator>, String> {
    let name = &asked.name;
    let strategy = find(name).ok_or_else(|| {
        let names: Vec<&str> = STRATEGIES.iter().map(|strategy| strategy.name).collect();
        format!("strategy {name:?} is none of {}", names.join(", "))
    })?;
    strategy.configured(&asked.params).map_err(|why| format!("strategy {name}: {why}"))
}

/// Whether a round can be averaged in this way.
pub fn check_strategy(asked: &StrategySpec) -> Result<(), String> {
    aggregator(asked).map(drop)
}

/// What a strategy is told of each member.
pub fn facts(job: &Job) -> Vec<Facts> {
    let facts = |member: &JobMember| Facts {
        loss: member.loss,
        steps: member.steps,
        staleness: member.staleness,
        ..Facts::new(member.num_samples)
    };
    job.members.iter().map(facts).collect()
}

fn here(member: &JobMember) -> Result<&Bytes, String> {
    match &member.values {
        Kept::Here(bytes) => Ok(bytes),
        Kept::Stored(_) => Err(format!("the update of {} is not in memory", member.proplet)),
    }
}

/// Of each member, the numbers of the model that it starts from; nothing where that is the round's
/// for all of them.
pub fn each_base(job: &Job) -> Vec<Option<&Kept>> {
    if job.members.iter().all(|member| member.base_values.is_none()) {
        return vec![];
    }
    let own = job.members.iter().map(|member| member.base_values.as_ref());
    own.map(|own| own.or(job.base_values.as_ref())).collect()
}

fn bases(job: &Job) -> Result<Vec<&Bytes>, Failed> {
    let bases = each_base(job).into_iter().map(|kept| match kept {
        Some(Kept::Here(bytes)) => Ok(bytes),
        Some(Kept::Stored(_)) | None => Err(aggregation("a base model is not in memory")),
    });
    bases.collect()
}

fn base_bytes(job: &Job) -> Result<Option<&Bytes>, String> {
    match &job.base_values {
        None => Ok(None),
        Some(Kept::Here(bytes)) => Ok(Some(bytes)),
        Some(Kept::Stored(_)) => Err(format!("base model {} is not in memory", job.base)),
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
