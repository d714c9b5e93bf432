//! One step under way: the time, and what has been decided so far.

use protocol::{Entry, Envelope, Filter, Output, Records, Timestamp, Topic};

use crate::{Effect, Note};

/// Collects what a step wants done.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) now: Timestamp,
    /// The list of tasks changed in a way that the manager should read of at once.
    pub(crate) alive: bool,
    /// The manager does not seem to have heard the introduction.
    pub(crate) stranger: bool,
    records: Records,
    outputs: Vec<Output<Effect>>,
}

impl Turn {
    pub(crate) const fn new(now: Timestamp, records: Records) -> Self {
        Self { now, alive: false, stranger: false, records, outputs: vec![] }
    }

    pub(crate) fn keep(&mut self, entry: impl FnOnce() -> Entry) {
        self.records.keep(&mut self.outputs, entry);
    }

    pub(crate) fn promise(&mut self, envelope: Envelope) {
        self.outputs.push(Output::Promise(envelope));
    }

    pub(crate) fn publish(&mut self, envelope: Envelope) {
        self.outputs.push(Output::Publish(envelope));
    }

    pub(crate) fn listen(&mut self, topic: Topic) {
        self.outputs.push(Output::Listen(Filter::Exactly(topic)));
    }

    pub(crate) fn unlisten(&mut self, topic: Topic) {
        self.outputs.push(Output::Unlisten(Filter::Exactly(topic)));
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.outputs.push(Output::Effect(effect));
    }

    pub(crate) fn note(&mut self, note: Note) {
        self.effect(Effect::Note(note));
    }

    pub(crate) fn end(self) -> Vec<Output<Effect>> {
        self.outputs
    }
}
