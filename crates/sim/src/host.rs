//! What the live driver does for a machine, in virtual time: a disk that is written before
//! anything else happens, a restart from it, a tick when one is due.

use std::collections::BTreeMap;

use protocol::{Entry, Filter, Input, Machine, Output, Records, Timestamp};

use crate::role::{Act, Acts};

/// A machine and its disk.
#[derive(Debug)]
pub(crate) struct Host<M> {
    /// None while its process is dead.
    machine: Option<M>,
    disk: Disk,
}

/// What survives the process.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// Of most machines there is nothing: what nobody will read is not kept.
    entries: Option<Box<Entries>>,
    records: Records,
}

type Entries = BTreeMap<(&'static str, String), Vec<u8>>;

impl<M: Machine> Host<M> {
    pub(crate) fn new(machine: M, records: Records) -> Self {
        Self { machine: Some(machine), disk: Disk { entries: None, records } }
    }

    pub(crate) const fn machine(&self) -> Option<&M> {
        self.machine.as_ref()
    }

    pub(crate) fn filters(&self) -> Vec<Filter> {
        self.machine.as_ref().map(Machine::filters).unwrap_or_default()
    }

    pub(crate) fn disconnected(&mut self) {
        if let Some(machine) = &mut self.machine {
            machine.disconnected();
        }
    }

    pub(crate) fn die(&mut self) {
        self.machine = None;
    }

    pub(crate) fn wipe(&mut self) {
        self.disk.entries = None;
    }

    /// A new process with what is on the disk.
    pub(crate) fn revive(&mut self, mut machine: M) {
        let entries =
            self.disk.entries.iter().flat_map(|entries| &**entries).map(|((table, key), value)| {
                Entry { table, key: key.clone(), value: Some(value.clone()) }
            });
        let restored = machine.restore(entries.collect());
        assert!(restored.is_ok(), "what a machine keeps it can read: {:?}", restored.err());
        self.machine = Some(machine);
    }

    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.machine.as_ref().and_then(Machine::deadline)
    }

    /// Tells the machine one thing. What it keeps is kept; the rest is handed on in order, effects
    /// by way of `perform`.
    pub(crate) fn step(
        &mut self,
        input: Input<M::News, M::Report>,
        now: Timestamp,
        acts: &mut Acts,
        mut perform: impl FnMut(M::Effect, &mut Acts),
    ) {
        let Some(machine) = &mut self.machine else { return };
        for output in machine.step(input, now) {
            match output {
                Output::Keep(entry) => self.disk.write(entry),
                Output::Promise(envelope) => acts.push(Act::Promise(envelope)),
                Output::Publish(envelope) => acts.push(Act::Publish(envelope)),
                Output::Listen(filter) => acts.push(Act::Listen(filter)),
                Output::Unlisten(filter) => acts.push(Act::Unlisten(filter)),
                Output::Effect(effect) => perform(effect, acts),
            }
        }
    }
}

impl Disk {
    fn write(&mut self, entry: Entry) {
        if self.records == Records::NeverRead {
            return;
        }
        let Entry { table, key, value } = entry;
        let entries = self.entries.get_or_insert_default();
        match value {
            Some(value) => drop(entries.insert((table, key), value)),
            None => drop(entries.remove(&(table, key))),
        }
    }
}
