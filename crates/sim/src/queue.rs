//! The one queue of events, and their total order: time, class, source, sequence.

use std::{cmp::Reverse, collections::BinaryHeap};

/// What goes first among events of one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Class {
    Fault,
    Broker,
    Delivery,
    Report,
    Connect,
    Wake,
}

/// The place of an event in the order of all. No two are equal: the sequence counts what one
/// source has caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) time_us: u64,
    pub(crate) class: Class,
    pub(crate) source: u32,
    pub(crate) seq: u64,
}

/// Events by key. Only keys are moved about; the events lie still.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<(Key, u32)>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    seqs: Vec<u64>,
}

impl<E> Queue<E> {
    /// An empty queue for this many sources.
    pub(crate) fn new(sources: usize) -> Self {
        Self { heap: BinaryHeap::new(), events: vec![], free: vec![], seqs: vec![0; sources] }
    }

    pub(crate) fn push(&mut self, time_us: u64, class: Class, source: u32, event: E) {
        let seq = self.next_seq(source);
        self.push_as(Key { time_us, class, source, seq }, event);
    }

    /// Puts in an event whose number was taken when it was caused.
    pub(crate) fn push_as(&mut self, key: Key, event: E) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.events.push(None);
                u32::try_from(self.events.len() - 1).expect("fewer than 2^32 events wait at once")
            }
        };
        self.events[slot as usize] = Some(event);
        self.heap.push(Reverse((key, slot)));
    }

    /// The next number of something that `source` causes.
    pub(crate) fn next_seq(&mut self, source: u32) -> u64 {
        let seq = &mut self.seqs[source as usize];
        *seq += 1;
        *seq
    }

    pub(crate) fn pop(&mut self) -> Option<(Key, E)> {
        let Reverse((key, slot)) = self.heap.pop()?;
        let event = self.events[slot as usize].take().expect("a key has its event");
        self.free.push(slot);
        Some((key, event))
    }

    /// When the next event happens.
    pub(crate) fn next_us(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((key, _))| key.time_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_order_of_insertion_changes_the_order_of_events() {
        // One source's events keep their order; beyond that, only the key counts.
        let all = [
            (5, Class::Wake, 0, "e"),
            (5, Class::Fault, 2, "b"),
            (1, Class::Wake, 2, "a"),
            (5, Class::Broker, 1, "c"),
            (5, Class::Broker, 3, "d"),
        ];
        for turn in 0..all.len() {
            let mut queue = Queue::new(4);
            let mut given = all;
            given.rotate_left(turn);
            for (time_us, class, source, name) in given {
                queue.push(time_us, class, source, name);
            }
            assert_eq!(queue.next_us(), Some(1));
            let order: String = std::iter::from_fn(|| queue.pop().map(|(_, name)| name)).collect();
            assert_eq!(order, "abcde");
        }
        let mut queue = Queue::new(1);
        (0..50).for_each(|n| queue.push(9, Class::Report, 0, n));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop().map(|(_, n)| n)).collect();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
    }
}
