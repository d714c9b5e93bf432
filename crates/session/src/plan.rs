//! From those that could be asked to those that are: how many, whom, and how many are waited for.

use std::collections::BTreeSet;

use protocol::{
    PropletId, Timestamp,
    message::{AsynchronousSpec, PARTICIPANTS_MAX, SessionStart, StrategySpec},
};

use crate::{
    candidates::Candidates,
    evaluating,
    selection::{self, Candidate, Draw, Shares},
};

/// What a proplet calls the size of its data, in its metadata.
const SAMPLES_KEY: &str = "data_samples";
const METHOD_DEFAULT: &str = "all";
const EVALUATORS_METHOD: &str = "random";
const OVER_MAX: f64 = 10.0;
/// The strategy of rounds that do not wait.
const ASYNCHRONOUS: &str = "fedbuff";
/// Versions that an update may be behind at most: the coordinator keeps the models in between.
const STALENESS_MAX: u64 = 1000;
/// Room for `-r1000000-t4294967295` in a round's id.
const SESSION_ID_LEN_MAX: usize = 100;

/// Who is asked, and how many answers close the round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) participants: Vec<PropletId>,
    pub(crate) k: usize,
}

/// What is wrong with a start, in words that name the value.
pub(crate) fn check(start: &SessionStart) -> Result<(), String> {
    let id = start.session_id.as_str();
    if id.len() > SESSION_ID_LEN_MAX {
        let len = id.len();
        return Err(format!("session_id has {len} characters, at most {SESSION_ID_LEN_MAX}"));
    }
    if start.task_wasm_image.is_some() && start.file.is_some() {
        return Err("task_wasm_image and file exclude each other".to_owned());
    }
    let spec = &start.selection;
    if let Some(method) = &spec.method
        && selection::find(method).is_none()
    {
        let names: Vec<&str> = selection::SELECTIONS.iter().map(|method| method.name).collect();
        return Err(format!("selection.method {method:?} is none of {}", names.join(", ")));
    }
    if let Some(fraction) = spec.fraction
        && !(fraction > 0.0 && fraction <= 1.0)
    {
        return Err(format!("selection.fraction takes more than 0, up to 1, not {fraction}"));
    }
    if let Some(over) = spec.over
        && !(1.0..=OVER_MAX).contains(&over)
    {
        return Err(format!("selection.over takes 1 to {OVER_MAX}, not {over}"));
    }
    if spec.count.is_some() && spec.fraction.is_some() {
        return Err("selection.count and selection.fraction exclude each other".to_owned());
    }
    check_asynchronous(start)?;
    let asked = spec.participants.len();
    if asked > PARTICIPANTS_MAX {
        return Err(format!("selection.participants takes up to {PARTICIPANTS_MAX}, not {asked}"));
    }
    evaluating::check(start)?;
    let counts = [
        ("selection.count", spec.count),
        ("selection.available_min", spec.available_min),
        ("k_of_n", start.k_of_n),
        ("min_updates", start.min_updates),
    ];
    if let Some((name, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
        return Err(format!("{name} takes at least 1, not 0"));
    }
    if start.deadline_s == Some(0) || start.patience.as_ref().is_some_and(|it| it.rounds == 0) {
        return Err("deadline_s and patience.rounds take at least 1, not 0".to_owned());
    }
    let numbers = [
        start.target.as_ref().map(|target| target.value),
        start.patience.as_ref().map(|patience| patience.min_delta),
    ];
    match numbers.into_iter().flatten().find(|number| !number.is_finite()) {
        Some(number) => Err(format!("target and patience take finite numbers, not {number}")),
        None => Ok(()),
    }
}

/// Rounds that do not wait say for themselves how many are asked, and how many are waited for.
fn check_asynchronous(start: &SessionStart) -> Result<(), String> {
    let Some(AsynchronousSpec { buffer, concurrency, staleness_max }) = start.asynchronous else {
        return Ok(());
    };
    let spec = &start.selection;
    let excluded = [
        ("k_of_n", start.k_of_n.is_some()),
        ("min_updates", start.min_updates.is_some()),
        ("selection.count", spec.count.is_some()),
        ("selection.fraction", spec.fraction.is_some()),
        ("selection.over", spec.over.is_some()),
    ];
    if let Some((name, _)) = excluded.iter().find(|(_, given)| *given) {
        return Err(format!("asynchronous and {name} exclude each other"));
    }
    if let Some(StrategySpec { name, .. }) = &start.strategy
        && name != ASYNCHRONOUS
    {
        return Err(format!(
            "asynchronous takes strategy {ASYNCHRONOUS}, which averages updates of different ages, \
             not {name:?}"
        ));
    }
    if buffer == 0 || concurrency < buffer || concurrency > PARTICIPANTS_MAX {
        return Err(format!(
            "asynchronous takes a buffer of at least 1 and a concurrency from that to \
             {PARTICIPANTS_MAX}, not {buffer} and {concurrency}"
        ));
    }
    if staleness_max == 0 || staleness_max > STALENESS_MAX {
        return Err(format!(
            "asynchronous.staleness_max takes 1 to {STALENESS_MAX}, not {staleness_max}"
        ));
    }
    Ok(())
}

/// Whom to ask in this round; or what it waits for. Those that are `busy` have been asked in an
/// earlier one, and are at work for this one as well.
pub(crate) fn plan(
    start: &SessionStart,
    round: u64,
    (candidates, shares): (&Candidates, &Shares),
    busy: &BTreeSet<PropletId>,
    now: Timestamp,
) -> Result<Plan, String> {
    let spec = &start.selection;
    if let Some(asynchronous) = &start.asynchronous {
        let participants = idle(start, asynchronous, (candidates, shares), (busy, round), now)?;
        return Ok(Plan { participants, k: asynchronous.buffer });
    }
    if !spec.participants.is_empty() {
        let participants: Vec<PropletId> = spec.participants.iter().cloned().collect();
        let k = start.k_of_n.unwrap_or(participants.len());
        return Ok(Plan { participants, k });
    }
    let fitting = fitting(start, candidates, now);
    let least = spec.available_min.or(start.k_of_n).or(spec.count).unwrap_or(1);
    if fitting.len() < least {
        return Err(format!("waits for proplets: {} of {least} are there", fitting.len()));
    }
    if spec.available_min.is_none() && !candidates.are_settled(now) {
        return Err("waits for the proplets to be heard".to_owned());
    }
    let share = |fraction: f64| ((fitting.len() as f64 * fraction).ceil() as usize).max(1);
    let wanted = spec.count.or(spec.fraction.map(share)).unwrap_or(fitting.len());
    let over = spec.over.unwrap_or(1.0);
    let count = ((wanted as f64 * over).ceil() as usize).min(fitting.len()).min(PARTICIPANTS_MAX);
    let participants = choose(start, round, (candidates, shares), &fitting, count)?;
    Ok(Plan { participants, k: start.k_of_n.unwrap_or(wanted) })
}

/// So many of those that have nothing to do that enough are at work; perhaps nobody.
fn idle(
    start: &SessionStart,
    asynchronous: &AsynchronousSpec,
    (candidates, shares): (&Candidates, &Shares),
    (busy, round): (&BTreeSet<PropletId>, u64),
    now: Timestamp,
) -> Result<Vec<PropletId>, String> {
    let spec = &start.selection;
    let mut could: Vec<&PropletId> = if spec.participants.is_empty() {
        fitting(start, candidates, now)
    } else {
        spec.participants.iter().collect()
    };
    let least = spec.available_min.unwrap_or(1);
    if could.len() < least && busy.is_empty() {
        return Err(format!("waits for proplets: {} of {least} are there", could.len()));
    }
    let are_named = !spec.participants.is_empty() || spec.available_min.is_some();
    if !are_named && !candidates.are_settled(now) {
        return Err("waits for the proplets to be heard".to_owned());
    }
    could.retain(|id| !busy.contains(*id));
    let count = asynchronous.concurrency.saturating_sub(busy.len()).min(could.len());
    choose(start, round, (candidates, shares), &could, count)
}

/// `count` of these, in the way that the session asks for.
fn choose(
    start: &SessionStart,
    round: u64,
    (candidates, shares): (&Candidates, &Shares),
    could: &[&PropletId],
    count: usize,
) -> Result<Vec<PropletId>, String> {
    let candidate = |id| describe(id, candidates, shares);
    let draw = Draw {
        candidates: could.iter().copied().map(candidate).collect(),
        seed: start.seed,
        round,
    };
    let name = start.selection.method.as_deref().unwrap_or(METHOD_DEFAULT);
    let method = selection::find(name).ok_or_else(|| format!("there is no selection {name:?}"))?;
    let mut chosen = (method.choose)(&draw, count);
    chosen.sort_unstable();
    Ok(chosen.into_iter().map(|index| could[index].clone()).collect())
}

/// Whoever could be asked; but not who evaluates for all, on data that nobody trains on.
fn fitting<'a>(
    start: &SessionStart,
    candidates: &'a Candidates,
    now: Timestamp,
) -> Vec<&'a PropletId> {
    let central = start.evaluate.as_ref().and_then(|spec| spec.central.as_ref());
    let mut fitting = candidates.fitting(&start.selection, now);
    fitting.retain(|id| Some(*id) != central);
    fitting
}

/// Who evaluates the model of this round on its own data: everybody that is not at work, or so many
/// by lot.
pub(crate) fn evaluators(
    start: &SessionStart,
    round: u64,
    count: Option<usize>,
    (candidates, busy): (&Candidates, &BTreeSet<PropletId>),
    now: Timestamp,
) -> Result<BTreeSet<PropletId>, String> {
    let named = &start.selection.participants;
    let could = if named.is_empty() {
        let found = fitting(start, candidates, now);
        if found.is_empty() || !candidates.are_settled(now) {
            return Err(format!("waits for proplets to evaluate: {} are there", found.len()));
        }
        found
    } else {
        named.iter().collect()
    };
    let could: Vec<&PropletId> = could.into_iter().filter(|id| !busy.contains(*id)).collect();
    let count = count.unwrap_or(could.len()).min(could.len()).min(PARTICIPANTS_MAX);
    let nobody = Shares::new();
    let described = could.iter().map(|id| describe(id, candidates, &nobody)).collect();
    let draw = Draw { candidates: described, seed: start.seed, round };
    let lot = selection::find(EVALUATORS_METHOD).map(|method| (method.choose)(&draw, count));
    Ok(lot.unwrap_or_default().into_iter().map(|index| could[index].clone()).collect())
}

fn describe<'a>(id: &'a PropletId, candidates: &Candidates, shares: &Shares) -> Candidate<'a> {
    let share = shares.get(id).cloned().unwrap_or_default();
    let said = || candidates.number(id, SAMPLES_KEY);
    Candidate {
        id,
        asked: share.asked,
        samples: share.samples.map(|count| count as f64).or_else(said).unwrap_or(1.0),
        utility: share.utility,
        counted_in: share.counted_in,
    }
}
