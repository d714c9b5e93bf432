//! Spans of rounds, from their start to their model, and what the messages of a round say of them.
//!
//! A round hangs below what its start names, or begins a trace that follows from its id. Where no
//! collector is, what a start names is passed on as it is, and nothing else is said.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::{
    Digest, Envelope, PropletId, RoundId, Timestamp, Topic, Traceparent,
    message::{
        Forwarded, ModelBlob, TRACEPARENT_ROOM, is_blob_form, read_traceparent,
        read_update_address, with_traceparent,
    },
};
use round::Note;
use service::{Begun, Clock as _, Inspector, SystemClock, Traces};

/// Updates on their way to a verdict that are remembered; of further ones it is not said from where
/// they came.
const UPDATES_MAX: usize = 100_000;

/// The rounds that are traced.
#[derive(Debug, Default)]
pub(crate) struct RoundTraces {
    traces: Traces,
    open: BTreeMap<RoundId, Open>,
    sight: Arc<Sight>,
}

#[derive(Debug)]
struct Open {
    /// What is said to those who take part.
    span: Traceparent,
    /// Its own, where there is a collector.
    begun: Option<Begun>,
    /// The model's way to the model server, and what it is known by there.
    publishing: Option<(Digest, Option<Begun>)>,
}

/// A span below which others are to hang.
#[derive(Debug)]
pub(crate) struct Below {
    traces: Traces,
    parent: Traceparent,
}

/// What is seen of messages by whom the core does not know of.
// The transport sees them, and the effects know what they belong to. Held for a look-up only.
#[derive(Debug, Default)]
struct Sight(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// Those that are traced; of others nothing is looked at.
    rounds: BTreeSet<RoundId>,
    updates: BTreeMap<(RoundId, PropletId), (Traceparent, Timestamp)>,
    models: BTreeMap<Digest, Traceparent>,
}

/// Reads from updates, and says with models, which span they belong to.
#[derive(Debug)]
pub(crate) struct Tracing {
    sight: Arc<Sight>,
    message_len_max: usize,
}

impl RoundTraces {
    pub(crate) fn new(traces: Traces) -> Self {
        Self { traces, ..Self::default() }
    }

    /// What looks at the messages.
    pub(crate) fn inspector(&self, message_len_max: usize) -> Tracing {
        Tracing { sight: Arc::clone(&self.sight), message_len_max }
    }

    pub(crate) fn traces(&self) -> Traces {
        self.traces.clone()
    }

    /// Where the aggregation of a round belongs.
    pub(crate) fn below(&self, round: &RoundId) -> Option<Below> {
        let open = self.open.get(round).filter(|_| self.traces.is_on())?;
        Some(Below { traces: self.traces.clone(), parent: open.span })
    }

    pub(crate) fn note(&mut self, note: &Note) {
        match note {
            Note::Opened { round, traceparent, .. } => {
                let parent = traceparent.as_ref().and_then(|field| field.parent());
                self.opened(round, parent, note);
            }
            Note::Accepted { round, proplet, num_samples } => {
                let begun = self.update(round, proplet);
                let begun = begun.map(|it| it.with("aileron.update.samples", *num_samples));
                end(begun, "accepted", None);
            }
            Note::Rejected { reason, round: Some(round), proplet: Some(proplet), what } => {
                let begun = self.update(round, proplet);
                let begun = begun.map(|it| it.with("aileron.update.reason", reason.to_string()));
                end(begun, "rejected", Some(what.clone()));
            }
            Note::Made { round, model, digest } => self.made(round, &model.to_string(), *digest),
            Note::VersionTaken { round, model, .. } => {
                let why = format!("somebody else published {model}");
                self.published(round, Some(why));
            }
            Note::Complete { round, model, num_updates, total_samples } => {
                self.published(round, None);
                let said = [
                    ("aileron.round.counted", *num_updates as u64),
                    ("aileron.round.samples", *total_samples),
                    ("aileron.model.version", model.version.0),
                ];
                self.ended(round, &said, None);
            }
            Note::Failed { round, reason, counted, error } => {
                let error = error.as_ref().map_or(String::new(), |error| format!(": {error}"));
                let why = format!("{reason}{error}");
                self.published(round, Some(why.clone()));
                self.ended(round, &[("aileron.round.counted", *counted as u64)], Some(why));
            }
            Note::StartRefused { .. }
            | Note::Rejected { .. }
            | Note::LeftOut { .. }
            | Note::Held { .. }
            | Note::Late { .. }
            | Note::NoRoom { .. }
            | Note::Receiving { .. }
            | Note::ReceptionFailed { .. }
            | Note::BadBase { .. }
            | Note::Absent { .. }
            | Note::Closed { .. }
            | Note::Unconfirmed { .. } => {}
        }
    }

    fn opened(&mut self, round: &RoundId, parent: Option<Traceparent>, note: &Note) {
        let Note::Opened { base, participants, k, .. } = note else { return };
        let (span, begun) = if self.traces.is_on() {
            let span = Traceparent::of_round(round, parent);
            let begun = self.traces.begin("round", span, parent.map(|parent| parent.span));
            let begun = begun
                .with("aileron.round.id", round.to_string())
                .with("aileron.round.base", base.to_string())
                .with("aileron.round.k", *k);
            let begun = match participants {
                Some(count) => begun.with("aileron.round.participants", *count),
                None => begun,
            };
            (span, Some(begun))
        } else {
            let Some(parent) = parent else { return };
            (parent, None)
        };
        if span.is_sampled() {
            self.open.insert(round.clone(), Open { span, begun, publishing: None });
            self.sight.look().rounds.insert(round.clone());
        }
    }

    /// From the arrival of an update, if that was seen, to its verdict.
    fn update(&self, round: &RoundId, proplet: &PropletId) -> Option<Begun> {
        let open = self.open.get(round).filter(|_| self.traces.is_on())?;
        let now = SystemClock.now();
        let seen = self.sight.look().updates.remove(&(round.clone(), proplet.clone()));
        // Who says another trace than its round's is not believed.
        let seen = seen.filter(|(parent, _)| parent.trace == open.span.trace);
        let (parent, arrived) = seen.unwrap_or((open.span, now));
        let sets_apart = format!("{proplet} {now}");
        let begun = self.traces.begin_below(parent, "update", &sets_apart).since(arrived);
        let begun = begun.with("aileron.round.id", round.to_string());
        Some(begun.with("aileron.proplet.id", proplet.to_string()))
    }

    fn made(&mut self, round: &RoundId, model: &str, digest: Digest) {
        let Some(open) = self.open.get_mut(round) else { return };
        let begun = self.traces.is_on().then(|| {
            let begun = self.traces.begin_below(open.span, "publish model", model);
            begun.with("aileron.model.uri", model.to_owned())
        });
        let parent = begun.as_ref().map_or(open.span, Begun::id);
        open.publishing = Some((digest, begun));
        self.sight.look().models.insert(digest, parent);
    }

    fn published(&mut self, round: &RoundId, error: Option<String>) {
        let Some(open) = self.open.get_mut(round) else { return };
        let Some((digest, begun)) = open.publishing.take() else { return };
        self.sight.look().models.remove(&digest);
        if let Some(begun) = begun {
            begun.end(error);
        }
    }

    fn ended(&mut self, round: &RoundId, said: &[(&'static str, u64)], error: Option<String>) {
        let Some(Open { begun, .. }) = self.open.remove(round) else { return };
        let mut seen = self.sight.look();
        seen.rounds.remove(round);
        seen.updates.retain(|(known, _), _| known != round);
        drop(seen);
        if let Some(mut begun) = begun {
            for &(key, number) in said {
                begun = begun.with(key, number);
            }
            let outcome = if error.is_none() { "complete" } else { "failed" };
            begun.with("aileron.round.outcome", outcome).end(error);
        }
    }
}

impl Below {
    pub(crate) fn begin(&self, name: &'static str) -> Begun {
        self.traces.begin_below(self.parent, name, "")
    }
}

fn end(begun: Option<Begun>, verdict: &'static str, error: Option<String>) {
    if let Some(begun) = begun {
        begun.with("aileron.update.verdict", verdict).end(error);
    }
}

impl Sight {
    fn look(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tracing {
    fn see(&self, payload: bytes::Bytes) {
        if self.sight.look().rounds.is_empty() {
            return;
        }
        let Forwarded { origin, payload } = Forwarded::read(payload);
        let Some(parent) = read_traceparent(&payload) else { return };
        let address = match origin {
            Some(origin) => (Some(origin.round_id), Some(origin.proplet_id)),
            None => read_update_address(&payload),
        };
        let (Some(round), Some(proplet)) = address else { return };
        let mut seen = self.sight.look();
        if seen.rounds.contains(&round) && seen.updates.len() < UPDATES_MAX {
            // Of one that is repeated, the first counts.
            let at = SystemClock.now();
            seen.updates.entry((round, proplet)).or_insert((parent, at));
        }
    }

    fn parent_of_model(&self, payload: &[u8]) -> Option<Traceparent> {
        if self.sight.look().models.is_empty()
            || payload.len() + TRACEPARENT_ROOM > self.message_len_max
        {
            return None;
        }
        let digest = if is_blob_form(payload) {
            serde_json::from_slice::<ModelBlob>(payload).ok()?.blob.sha256()
        } else {
            Digest::of(payload)
        };
        self.sight.look().models.get(&digest).copied()
    }
}

impl Inspector for Tracing {
    fn inbound(&self, envelope: Envelope) -> Envelope {
        if let Topic::ForwardedUpdate = envelope.topic {
            self.see(envelope.payload.clone());
        }
        envelope
    }

    fn outbound(&self, envelope: Envelope) -> Envelope {
        let Topic::ModelPublish { .. } = envelope.topic else { return envelope };
        let parent = self.parent_of_model(&envelope.payload);
        let traced = parent.and_then(|parent| with_traceparent(&envelope.payload, &parent));
        match traced {
            Some(payload) => Envelope { payload, ..envelope },
            None => envelope,
        }
    }
}
