//! The one queue of events, and their total order: time, class, source, sequence.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap},
};

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

/// Events by key. Only those of the next stretch of time stand in order; what comes later waits
/// in the stretch that it belongs to, so that a hundred thousand alarms far ahead cost nothing.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    /// Empty only if everything is.
    next: BinaryHeap<Reverse<Placed<E>>>,
    /// The stretch that `next` holds, with everything before it.
    stretch: u64,
    later: BTreeMap<u64, Vec<Reverse<Placed<E>>>>,
    seqs: Vec<u64>,
}

#[derive(Debug)]
struct Placed<E> {
    key: Key,
    event: E,
}

/// A stretch has two to the power of this many microseconds.
const STRETCH_BITS: u32 = 10;

impl<E> Queue<E> {
    /// An empty queue for this many sources.
    pub(crate) fn new(sources: usize) -> Self {
        let (next, later) = (BinaryHeap::new(), BTreeMap::new());
        Self { next, stretch: 0, later, seqs: vec![0; sources] }
    }

    pub(crate) fn push(&mut self, time_us: u64, class: Class, source: u32, event: E) {
        let seq = self.next_seq(source);
        self.push_as(Key { time_us, class, source, seq }, event);
    }

    /// Puts in an event whose number was taken when it was caused.
    pub(crate) fn push_as(&mut self, key: Key, event: E) {
        let stretch = key.time_us >> STRETCH_BITS;
        let placed = Reverse(Placed { key, event });
        if self.next.is_empty() {
            self.stretch = stretch;
        }
        if stretch <= self.stretch {
            self.next.push(placed);
        } else {
            self.later.entry(stretch).or_default().push(placed);
        }
    }

    /// The next number of something that `source` causes.
    pub(crate) fn next_seq(&mut self, source: u32) -> u64 {
        let seq = &mut self.seqs[source as usize];
        *seq += 1;
        *seq
    }

    pub(crate) fn pop(&mut self) -> Option<(Key, E)> {
        let Reverse(Placed { key, event }) = self.next.pop()?;
        if self.next.is_empty()
            && let Some((stretch, events)) = self.later.pop_first()
        {
            self.stretch = stretch;
            self.next = events.into();
        }
        Some((key, event))
    }

    /// When the next event happens.
    pub(crate) fn next_us(&self) -> Option<u64> {
        self.next.peek().map(|Reverse(placed)| placed.key.time_us)
    }
}

impl<E> PartialEq for Placed<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<E> Eq for Placed<E> {}

impl<E> PartialOrd for Placed<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Placed<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
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

    #[test]
    fn stretches_of_time_do_not_show_in_the_order() {
        let mut queue = Queue::new(3);
        let mut dice = crate::Dice::of(7, "queue", "test");
        let (mut now, mut waiting, mut last) = (0, 0, None);
        for _ in 0..20_000 {
            if waiting > 0 && dice.chance(0.5) {
                let (key, pushed) = queue.pop().unwrap();
                assert!(last.is_none_or(|last| last < key), "{last:?} before {key:?}");
                assert_eq!(pushed, key.time_us);
                (now, last, waiting) = (key.time_us, Some(key), waiting - 1);
            } else {
                let far = [0, 3, 5_000, 40_000_000][dice.below(4) as usize];
                let (at, source) = (now + dice.between(1, 1 + far), dice.below(3) as u32);
                queue.push(at, Class::Report, source, at);
                waiting += 1;
            }
        }
        assert!(queue.pop().is_some());
    }
}
