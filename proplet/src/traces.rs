//! Spans of tasks on this device, and what its updates say of them.
//!
//! A run hangs below what its start names. Where no collector is, that is passed on as it is; a
//! start that names nothing leaves nothing behind.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use agent::{ENV_ROUND_ID, Note, Outcome};
use protocol::{
    Envelope, RoundId, SpanId, TRACEPARENT_ENV, Timestamp, Topic, Traceparent,
    message::{TRACEPARENT_ROOM, TaskStart, with_traceparent},
};
use service::{Begun, Clock as _, Inspector, SystemClock, Traces};

use crate::executor::Metrics;

/// Updates that wait for their verdict and are remembered.
const UPDATES_MAX: usize = 1000;

/// The tasks that are traced. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunTraces {
    traces: Traces,
    sight: Arc<Sight>,
}

// The effects know where an update belongs, the transport when it goes out. Held for a look-up.
#[derive(Debug, Default)]
struct Sight(Mutex<BTreeMap<RoundId, Sending>>);

/// An update on its way.
#[derive(Debug)]
struct Sending {
    /// What it says.
    parent: Traceparent,
    /// Its own span, from when it first goes out to its verdict, where there is a collector.
    begun: Option<Begun>,
    went_out: Option<Timestamp>,
}

/// One run under way.
#[derive(Debug)]
pub(crate) struct RunTrace {
    traces: Traces,
    task: Begun,
    /// The guest's own; it is told which one it is.
    run: Begun,
}

/// Says with updates which span they belong to.
#[derive(Debug)]
pub(crate) struct Tracing {
    sight: Arc<Sight>,
    message_len_max: usize,
}

impl RunTraces {
    pub(crate) fn new(traces: Traces) -> Self {
        Self { traces, sight: Arc::default() }
    }

    /// What looks at the messages.
    pub(crate) fn inspector(&self, message_len_max: usize) -> Tracing {
        Tracing { sight: Arc::clone(&self.sight), message_len_max }
    }

    pub(crate) async fn close(self) {
        self.traces.close().await;
    }

    /// A run begins; its guest is told of its own span.
    pub(crate) fn begin(&self, start: &mut TaskStart) -> Option<RunTrace> {
        let parent = start.parent().filter(|parent| parent.is_sampled())?;
        let round = start.env.get(ENV_ROUND_ID).cloned();
        let own = self.traces.is_on().then(|| self.own(start, parent, round.as_deref()));
        if let Some(round) = round.and_then(|round| round.parse().ok()) {
            self.expect(round, own.as_ref().map_or(parent, |own| own.task.id()));
        }
        if let Some(own) = &own {
            start.env.insert(TRACEPARENT_ENV.to_owned(), own.run.id().to_string());
        }
        own
    }

    fn own(&self, start: &TaskStart, parent: Traceparent, round: Option<&str>) -> RunTrace {
        let (task, attempt) = (start.id.as_str(), start.attempt.to_string());
        let proplet = start.proplet_id.as_ref().map_or("", |proplet| proplet.as_str());
        let above = parent.span.to_string();
        let id = SpanId::of("run on a proplet", [above.as_str(), task, &attempt, proplet]);
        let begun = self.traces.begin("task", parent.with_span(id), Some(parent.span));
        let begun = begun
            .with("aileron.task.id", task.to_owned())
            .with("aileron.task.attempt", u64::from(start.attempt))
            .with("aileron.proplet.id", proplet.to_owned());
        let task = match round {
            Some(round) => begun.with("aileron.round.id", round.to_owned()),
            None => begun,
        };
        let run = self.traces.begin_below(task.id(), "run", "");
        RunTrace { traces: self.traces.clone(), task, run }
    }

    /// An update will come of it, perhaps.
    fn expect(&self, round: RoundId, parent: Traceparent) {
        let begun = self.traces.is_on().then(|| {
            let begun = self.traces.begin_below(parent, "send update", "");
            begun.with("aileron.round.id", round.to_string())
        });
        let parent = begun.as_ref().map_or(parent, Begun::id);
        let mut updates = self.sight.look();
        // One that never came of its task makes room.
        if updates.len() >= UPDATES_MAX {
            updates.pop_first();
        }
        updates.insert(round, Sending { parent, begun, went_out: None });
    }

    pub(crate) fn note(&self, note: &Note) {
        let (round, error) = match note {
            Note::Accepted { round } => (round, None),
            Note::Rejected { round, reason } => (round, Some(reason.to_string())),
            Note::Started { .. }
            | Note::Completed { .. }
            | Note::Failed { .. }
            | Note::Superseded { .. }
            | Note::Fetching { .. }
            | Note::Fetched { .. }
            | Note::Offered { .. }
            | Note::Sending { .. }
            | Note::Unreadable { .. } => return,
        };
        let sent = self.sight.look().remove(round);
        let Some(Sending { begun: Some(begun), went_out: Some(at), .. }) = sent else { return };
        begun.since(at).end(error);
    }
}

impl RunTrace {
    /// The program is here, or cannot be had.
    pub(crate) fn fetched(&self, error: Option<String>) {
        let begun = self.traces.begin_below(self.task.id(), "fetch module", "");
        begun.since(self.task.began()).end(error);
    }

    /// The guest has ended just now, and took so long.
    pub(crate) fn ran(&self, took: &Metrics, error: Option<String>) {
        let Some(origin) = took.origin else { return };
        let now = SystemClock.now();
        let ran_from = before(now, took.wall_us);
        let compile = self.traces.begin_below(self.task.id(), "compile", "");
        compile
            .since(before(ran_from, took.prepare_us))
            .with("aileron.module.from", origin.as_str())
            .end_at(ran_from, None);
        self.run.clone().since(ran_from).end_at(now, error);
    }

    pub(crate) fn end(self, outcome: &Outcome) {
        self.task.end(match outcome {
            Outcome::Ok(_) | Outcome::Packed(_) => None,
            Outcome::Failed(why) => Some(format!("{}: {}", why.code.0, why.message)),
        });
    }
}

fn before(at: Timestamp, micros: u64) -> Timestamp {
    Timestamp::from_micros(at.as_micros().saturating_sub(micros))
}

impl Sight {
    fn look(&self) -> MutexGuard<'_, BTreeMap<RoundId, Sending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inspector for Tracing {
    /// The same update says the same, however often it is said.
    fn outbound(&self, envelope: Envelope) -> Envelope {
        let Topic::RoundUpdate { round, .. } = &envelope.topic else { return envelope };
        let parent = match self.sight.look().get_mut(round) {
            None => return envelope,
            Some(sending) => {
                sending.went_out.get_or_insert_with(|| SystemClock.now());
                sending.parent
            }
        };
        if envelope.payload.len() + TRACEPARENT_ROOM > self.message_len_max {
            return envelope;
        }
        match with_traceparent(&envelope.payload, &parent) {
            Some(payload) => Envelope { payload, ..envelope },
            None => envelope,
        }
    }
}
