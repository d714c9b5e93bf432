//! One step in the making: the time it happens at, and what has been decided so far.

use protocol::{Entry, Envelope, Output, Records, Timestamp};

use crate::{Effect, Note};

#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) now: Timestamp,
    records: Records,
    pub(crate) out: Vec<Output<Effect>>,
}

impl Turn {
    pub(crate) const fn at(now: Timestamp, records: Records) -> Self {
        Self { now, records, out: vec![] }
    }

    pub(crate) fn keep(&mut self, entry: Entry) {
        self.keep_with(|| entry);
    }

    /// Where entries are many, or long, and perhaps nobody reads them.
    pub(crate) fn keep_with(&mut self, entry: impl FnOnce() -> Entry) {
        self.records.keep(&mut self.out, entry);
    }

    pub(crate) fn promise(&mut self, envelope: Envelope) {
        self.out.push(Output::Promise(envelope));
    }

    pub(crate) fn publish(&mut self, envelope: Envelope) {
        self.out.push(Output::Publish(envelope));
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.out.push(Output::Effect(effect));
    }

    pub(crate) fn note(&mut self, note: Note) {
        self.effect(Effect::Note(note));
    }
}
