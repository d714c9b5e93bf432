//! One task: its wording, and where its life stands. Every way from one phase to the next is a
//! method here; a way that does not exist is an [`Illegal`] value, and changes nothing.
//!
//! ```text
//!              start                  confirm            report
//!    Pending --------> Active(sent) ---------> Active(held) ---------> Ended
//!                         ^  |  \______________ report ________________^ ^ |
//!                   rerun |  | interrupt        (retries left)   cancel | | start again:
//!                  resume |  v                                          | | a new attempt
//!                        Waiting ---------------------------------------+ v
//! ```

mod phase;

pub(crate) use phase::{Active, End, Ended, Outcome, Phase, Run, Runs, Stage, Waiting};

use std::{collections::BTreeMap, fmt, sync::Arc};

use protocol::{PropletId, TaskId, Timestamp, message::TaskState};

use crate::{Spec, image::Pinned, spec::FileRef};

/// Some JSON, as text.
#[derive(Clone, PartialEq, Eq)]
pub struct JsonText(Arc<str>);

/// A task cannot do this in the state that it is in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task {task} is {state}{detail}: it cannot {act}")]
pub struct Illegal {
    pub task: TaskId,
    pub state: TaskState,
    /// Says more of the state, where the word does not say it all.
    detail: &'static str,
    act: &'static str,
}

#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) id: TaskId,
    /// The order of creation.
    pub(crate) seq: u64,
    pub(crate) spec: Arc<Spec>,
    /// What its latest start runs, where the wording leaves that open.
    pub(crate) pinned: Option<Arc<Pinned>>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    /// Counts the runs; 0 before the first.
    attempt: u32,
    /// Runs that were begun again since somebody started the task.
    retried: u32,
    phase: Phase,
}

impl Task {
    pub(crate) fn new(id: TaskId, seq: u64, spec: Spec, now: Timestamp) -> Self {
        let spec = Arc::new(spec);
        let (created_at, updated_at) = (now, now);
        Self {
            id,
            seq,
            spec,
            pinned: None,
            created_at,
            updated_at,
            attempt: 0,
            retried: 0,
            phase: Phase::Pending,
        }
    }

    /// As it was kept before a restart.
    pub(crate) fn revive(fresh: Self, attempt: u32, retried: u32, phase: Phase) -> Self {
        Self { attempt, retried, phase, ..fresh }
    }

    /// The modules that are held for it.
    pub(crate) fn files(&self) -> impl Iterator<Item = FileRef> + use<> {
        let pinned = self.pinned.as_ref().and_then(|pinned| pinned.file);
        self.spec.file().into_iter().chain(pinned)
    }

    pub(crate) const fn attempt(&self) -> u32 {
        self.attempt
    }

    pub(crate) const fn retried(&self) -> u32 {
        self.retried
    }

    pub(crate) const fn phase(&self) -> &Phase {
        &self.phase
    }

    pub(crate) fn state(&self) -> TaskState {
        self.phase.state()
    }

    pub(crate) const fn ended(&self) -> Option<&Ended> {
        match &self.phase {
            Phase::Ended(ended) => Some(ended),
            Phase::Pending | Phase::Active(_) | Phase::Waiting(_) => None,
        }
    }

    /// The run on `proplet`, if there is one that has not been reported on.
    pub(crate) fn run(&self, proplet: &PropletId) -> Option<&Run> {
        self.phase.runs().and_then(|runs| runs.get(proplet)).filter(|run| run.is_open())
    }

    /// Where it runs right now, in order.
    pub(crate) fn running_on(&self) -> Vec<PropletId> {
        let runs = self.phase.runs().into_iter().flat_map(Runs::iter);
        let open = runs.filter(|(_, run)| run.is_open());
        open.map(|(proplet, _)| proplet.clone()).collect()
    }

    /// Changes whenever the places do where it runs; most steps of its life change no place.
    pub(crate) fn places(&self) -> Option<(u32, u32, usize)> {
        let runs = self.phase.runs()?;
        let open = runs.values().filter(|run| run.is_open()).count();
        Some((self.attempt, self.retried, open))
    }

    /// Every proplet that its latest attempt was sent to.
    pub(crate) fn sent_to(&self) -> Vec<PropletId> {
        match &self.phase {
            Phase::Pending => vec![],
            Phase::Active(active) => active.runs.proplets().cloned().collect(),
            Phase::Waiting(waiting) => vec![waiting.last.clone()],
            Phase::Ended(ended) => {
                ended.errors.iter().map(|(proplet, _)| proplet.clone()).collect()
            }
        }
    }

    /// Whether `attempt`, as a proplet names it, is the latest; 0 comes from those that do not
    /// count.
    pub(crate) const fn is_latest(&self, attempt: u32) -> bool {
        attempt == 0 || attempt == self.attempt
    }

    /// Whether its latest attempt was sent to `proplet`.
    pub(crate) fn was_sent_to(&self, proplet: &PropletId) -> bool {
        match &self.phase {
            Phase::Pending => false,
            Phase::Active(active) => active.runs.get(proplet).is_some(),
            Phase::Waiting(waiting) => waiting.last == *proplet,
            Phase::Ended(ended) => ended.errors.iter().any(|(at, _)| at == proplet),
        }
    }

    /// Somebody wants it to run, on these proplets, in order.
    pub(crate) fn start(&mut self, on: Vec<PropletId>, now: Timestamp) -> Result<(), Illegal> {
        match &self.phase {
            Phase::Pending | Phase::Ended(_) => {}
            Phase::Active(_) | Phase::Waiting(_) => return Err(self.illegal("start")),
        }
        self.attempt += 1;
        self.retried = 0;
        self.phase = Phase::Active(Active::sent(on, now));
        Ok(())
    }

    /// Its run was cut off, and a new one begins.
    pub(crate) fn rerun(&mut self, on: PropletId, now: Timestamp) -> Result<(), Illegal> {
        let Phase::Waiting(_) = &self.phase else { return Err(self.illegal("run again")) };
        self.attempt += 1;
        self.retried += 1;
        self.phase = Phase::Active(Active::sent(vec![on], now));
        Ok(())
    }

    /// The run that was thought to be cut off goes on.
    pub(crate) fn resume(&mut self, on: &PropletId, now: Timestamp) -> Result<(), Illegal> {
        match &self.phase {
            Phase::Waiting(waiting) if waiting.last == *on => {
                self.phase = Phase::Active(Active::held(on.clone(), now));
                Ok(())
            }
            Phase::Pending | Phase::Active(_) | Phase::Waiting(_) | Phase::Ended(_) => {
                Err(self.illegal("go on"))
            }
        }
    }

    /// The proplet has got it.
    pub(crate) fn confirm(&mut self, on: &PropletId, now: Timestamp) -> Result<(), Illegal> {
        let illegal = self.illegal("be confirmed");
        let run = self.open_run(on).ok_or(illegal)?;
        run.stage = Stage::Held { since: now };
        Ok(())
    }

    /// The start was sent once more.
    pub(crate) fn resent(&mut self, on: &PropletId, now: Timestamp) -> Result<(), Illegal> {
        let illegal = self.illegal("be sent again");
        let run = self.open_run(on).ok_or(illegal)?;
        run.resend(now);
        Ok(())
    }

    /// What became of the run on that proplet.
    pub(crate) fn report(
        &mut self,
        on: &PropletId,
        outcome: Outcome,
        now: Timestamp,
    ) -> Result<(), Illegal> {
        if let Phase::Waiting(waiting) = &self.phase
            && waiting.last == *on
        {
            let active = Active::held(on.clone(), waiting.since);
            self.phase = Phase::Active(active);
        }
        let illegal = self.illegal("be reported on");
        let run = self.open_run(on).ok_or(illegal)?;
        run.stage = Stage::Reported { since: run.since(), outcome: Box::new(outcome) };
        self.end_if_all_reported(now);
        Ok(())
    }

    /// The run on that proplet was cut off: it waits to run again, or this was its end.
    pub(crate) fn interrupt(
        &mut self,
        on: &PropletId,
        why: String,
        resume_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), Illegal> {
        let again = !self.spec.is_broadcast() && self.retried < self.spec.retries;
        let illegal = self.illegal("be interrupted");
        let since = self.open_run(on).ok_or(illegal)?.since();
        if again {
            let last = on.clone();
            self.phase = Phase::Waiting(Box::new(Waiting { last, since, why, resume_at }));
            return Ok(());
        }
        self.report(on, Outcome::Interrupted(why), now)
    }

    /// Nobody wants it any more.
    pub(crate) fn cancel(&mut self, why: &str, now: Timestamp) -> Result<(), Illegal> {
        if let Phase::Waiting(waiting) = &self.phase {
            self.phase = Phase::Active(Active::held(waiting.last.clone(), waiting.since));
        }
        let illegal = self.illegal("stop");
        let Phase::Active(active) = &mut self.phase else { return Err(illegal) };
        for run in active.runs.values_mut().filter(|run| run.is_open()) {
            let outcome = Box::new(Outcome::Interrupted(why.to_owned()));
            run.stage = Stage::Reported { since: run.since(), outcome };
        }
        self.end_if_all_reported(now);
        Ok(())
    }

    fn open_run(&mut self, on: &PropletId) -> Option<&mut Run> {
        match &mut self.phase {
            Phase::Active(active) => active.runs.get_mut(on).filter(|run| run.is_open()),
            Phase::Pending | Phase::Waiting(_) | Phase::Ended(_) => None,
        }
    }

    fn end_if_all_reported(&mut self, now: Timestamp) {
        if let Phase::Active(active) = &self.phase
            && let Some(ended) = active.ended(self.spec.is_broadcast(), now)
        {
            self.phase = Phase::Ended(Box::new(ended));
        }
    }

    fn illegal(&self, act: &'static str) -> Illegal {
        let detail = match &self.phase {
            Phase::Waiting(_) => " and waits to run again",
            Phase::Pending | Phase::Active(_) | Phase::Ended(_) => "",
        };
        Illegal { task: self.id.clone(), state: self.state(), detail, act }
    }

    /// Refuses to be reworded or removed while it is under way.
    pub(crate) fn at_rest(&self, act: &'static str) -> Result<(), Illegal> {
        match &self.phase {
            Phase::Pending | Phase::Ended(_) => Ok(()),
            Phase::Active(_) | Phase::Waiting(_) => Err(self.illegal(act)),
        }
    }
}

impl JsonText {
    /// Takes over the text of some JSON.
    pub fn of(value: &serde_json::Value) -> Self {
        Self(value.to_string().into())
    }

    /// Puts texts together under names.
    pub(crate) fn object(parts: &BTreeMap<String, Self>) -> Self {
        let field = |(name, text): (&String, &Self)| {
            format!("{}:{}", serde_json::Value::from(name.as_str()), text.as_str())
        };
        let fields: Vec<_> = parts.iter().map(field).collect();
        Self(format!("{{{}}}", fields.join(",")).into())
    }

    /// As it was kept.
    pub(crate) fn revive(text: String) -> Self {
        Self(text.into())
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
