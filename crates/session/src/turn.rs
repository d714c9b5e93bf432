//! One step in the making: the time it happens at, and what has been decided so far.

use protocol::{Entry, Envelope, Output, Timestamp};

use crate::{Effect, Note};

#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) now: Timestamp,
    pub(crate) out: Vec<Output<Effect>>,
}

impl Turn {
    pub(crate) const fn at(now: Timestamp) -> Self {
        Self { now, out: vec![] }
    }

    pub(crate) fn keep(&mut self, entry: Entry) {
        self.out.push(Output::Keep(entry));
    }

    pub(crate) fn publish(&mut self, envelope: Envelope) {
        self.out.push(Output::Publish(envelope));
    }

    pub(crate) fn note(&mut self, note: Note) {
        self.out.push(Output::Effect(Effect::Note(note)));
    }
}
