//! What a node will send later: work that takes virtual time.

use std::collections::BTreeMap;

use crate::wire::Event;

/// Events by the time at which they happen; equal times in the order in which they were put in.
#[derive(Clone, Debug, Default)]
pub struct Agenda {
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
}

impl Agenda {
    /// Notes an event for a time that the node has not lived through yet.
    pub fn put(&mut self, time_us: u64, event: Event) {
        let event = Event { time_us: Some(time_us), ..event };
        self.events.insert((time_us, self.count), event);
        self.count += 1;
    }

    /// Takes out what happens up to a time.
    pub fn take_until(&mut self, to_us: u64) -> Vec<Event> {
        let mut due = vec![];
        while let Some(first) = self.events.first_entry() {
            if first.key().0 > to_us {
                break;
            }
            due.push(first.remove());
        }
        due
    }

    /// When the next event happens; `u64::MAX` where there is none, since then only others can wake the node.
    #[must_use]
    pub fn next_us(&self) -> u64 {
        self.events.keys().next().map_or(u64::MAX, |(time_us, _)| *time_us)
    }
}
