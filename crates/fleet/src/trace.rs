//! Which trace the tasks of a round belong to. The word goes with their environment, which is kept
//! with them and handed on unread; what becomes of it is the shell's.

use protocol::{PropletId, RoundId, SpanId, TRACEPARENT_ENV, Traceparent, message::RoundStart};

use crate::Spec;

/// What all tasks of a round have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RoundTrace {
    /// Nobody keeps spans here: they hang below what the round's start names.
    Passed(Traceparent),
    /// They hang below spans of their own, which the shell tells of.
    Kept(Traceparent),
}

/// A participant's task that has a span of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedTask {
    pub round: RoundId,
    pub proplet: PropletId,
    pub span: Traceparent,
}

impl RoundTrace {
    /// None if the start names no trace and nobody here would keep one.
    pub(crate) fn of(start: &RoundStart, keeps: bool) -> Option<Self> {
        if keeps {
            return Some(Self::Kept(Traceparent::of_round(&start.round_id, start.parent())));
        }
        start.parent().map(Self::Passed)
    }

    /// What one participant's task is told.
    pub(crate) fn task(self, round: &RoundId, proplet: &PropletId) -> Traceparent {
        match self {
            Self::Passed(parent) => parent,
            Self::Kept(span) => span.with_span(SpanId::of_task(round, proplet)),
        }
    }
}

impl Spec {
    /// What the environment says of a trace, whoever has put it there.
    pub(crate) fn parent(&self) -> Option<Traceparent> {
        self.env.get(TRACEPARENT_ENV)?.parse().ok()
    }

    /// Its own span, if the environment names that.
    pub(crate) fn traced(&self) -> Option<Box<TracedTask>> {
        let span = self.parent()?;
        let (round, proplet) = (self.round()?, self.pinned()?.clone());
        let is_own = span.span == SpanId::of_task(&round, &proplet);
        is_own.then(|| Box::new(TracedTask { round, proplet, span }))
    }
}
