//! The one queue of events, and their total order: time, class, source, sequence.

mod pool;

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap},
};

use pool::{List, Pool};

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

/// Events by key. Only those of the present moment stand in order; what comes soon waits in the
/// moment that it belongs to, what comes later in its stretch of moments: so a hundred thousand
/// alarms far ahead cost nothing, and what is put in is compared with few others.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    /// The present moment, the last event first.
    now: Vec<Placed<E>>,
    /// What was put into the present moment, or before it, since it began.
    fresh: BinaryHeap<Reverse<Placed<E>>>,
    moment: u64,
    /// The moments of the present stretch.
    soon: Vec<Vec<Placed<E>>>,
    /// A bit for each moment that has events, from the lowest.
    taken: [u64; MOMENTS / 64],
    later: BTreeMap<u64, Stretch>,
    pool: Pool<Placed<E>>,
    seqs: Vec<u64>,
}

/// Moments that come later: an hour has fifty thousand such stretches, most with few events.
#[derive(Debug)]
struct Stretch {
    /// The earliest of its events, which stand in no order.
    first: Key,
    events: List,
}

#[derive(Debug)]
struct Placed<E> {
    key: Key,
    event: E,
}

/// A moment has two to the power of this many microseconds: less than a service is away from the
/// broker.
const MOMENT_BITS: u32 = 6;
/// Moments in a stretch.
const MOMENTS: usize = 1 << STRETCH_BITS;
const STRETCH_BITS: u32 = 10;
/// Memory for this many events is used again, moment after moment.
const REUSED_MAX: usize = 64;

impl<E> Queue<E> {
    /// An empty queue for this many sources.
    pub(crate) fn new(sources: usize) -> Self {
        Self {
            now: vec![],
            fresh: BinaryHeap::new(),
            moment: 0,
            soon: (0..MOMENTS).map(|_| vec![]).collect(),
            taken: [0; MOMENTS / 64],
            later: BTreeMap::new(),
            pool: Pool::default(),
            seqs: vec![0; sources],
        }
    }

    pub(crate) fn push(&mut self, time_us: u64, class: Class, source: u32, event: E) {
        let seq = self.next_seq(source);
        self.push_as(Key { time_us, class, source, seq }, event);
    }

    /// Puts in an event whose number was taken when it was caused.
    pub(crate) fn push_as(&mut self, key: Key, event: E) {
        let moment = key.time_us >> MOMENT_BITS;
        let stretch = moment >> STRETCH_BITS;
        let placed = Placed { key, event };
        if moment <= self.moment {
            self.fresh.push(Reverse(placed));
        } else if stretch == self.moment >> STRETCH_BITS {
            self.put(moment, placed);
        } else {
            let none = || Stretch { first: key, events: List::default() };
            let later = self.later.entry(stretch).or_insert_with(none);
            later.first = later.first.min(key);
            self.pool.push(&mut later.events, placed);
        }
    }

    /// The next number of something that `source` causes.
    pub(crate) fn next_seq(&mut self, source: u32) -> u64 {
        let seq = &mut self.seqs[source as usize];
        *seq += 1;
        *seq
    }

    pub(crate) fn pop(&mut self) -> Option<(Key, E)> {
        // Not before: what the last event has caused may come before the next moment.
        if self.now.is_empty() && self.fresh.is_empty() {
            self.advance();
        }
        let Placed { key, event } = match (self.now.last(), self.fresh.peek()) {
            (Some(next), Some(Reverse(fresh))) if fresh < next => self.fresh.pop()?.0,
            (Some(_), _) => self.now.pop()?,
            (None, _) => self.fresh.pop()?.0,
        };
        Some((key, event))
    }

    /// When the next event happens.
    pub(crate) fn next_us(&self) -> Option<u64> {
        self.next_key().map(|key| key.time_us)
    }

    /// The place of the next event.
    pub(crate) fn next_key(&self) -> Option<Key> {
        let fresh = self.fresh.peek().map(|Reverse(fresh)| fresh.key);
        let present = self.now.last().map(|next| next.key).into_iter().chain(fresh).min();
        let soon = || self.next_moment().and_then(|at| self.soon[at].iter().map(|it| it.key).min());
        let later = || self.later.first_key_value().map(|(_, stretch)| stretch.first);
        present.or_else(soon).or_else(later)
    }

    /// Takes the events out that `is_other` finds, for a queue of their own that counts on from
    /// here.
    pub(crate) fn divide(&mut self, is_other: impl Fn(&E) -> bool) -> Self {
        let (mut own, mut other) = (Self::new(0), Self::new(0));
        while let Some((key, event)) = self.pop() {
            let to = if is_other(&event) { &mut other } else { &mut own };
            to.push_as(key, event);
        }
        other.seqs = self.seqs.clone();
        own.seqs = std::mem::take(&mut self.seqs);
        *self = own;
        other
    }

    /// Makes the next moment that has events the present one.
    fn advance(&mut self) {
        if self.next_moment().is_none() {
            let Some((_, mut stretch)) = self.later.pop_first() else { return };
            while let Some(placed) = self.pool.pop(&mut stretch.events) {
                self.put(placed.key.time_us >> MOMENT_BITS, placed);
            }
        }
        let Some(place) = self.next_moment() else { return };
        self.taken[place / 64] &= !(1 << (place % 64));
        if self.now.capacity() > REUSED_MAX {
            self.now = vec![];
        }
        std::mem::swap(&mut self.now, &mut self.soon[place]);
        self.now.sort_unstable_by(|one, another| another.cmp(one));
        self.moment = self.now.last().map_or(0, |next| next.key.time_us >> MOMENT_BITS);
    }

    /// The first moment of the present stretch that has events.
    fn next_moment(&self) -> Option<usize> {
        let word = self.taken.iter().position(|bits| *bits != 0)?;
        Some(word * 64 + self.taken[word].trailing_zeros() as usize)
    }

    /// Puts an event into its moment of the present stretch.
    fn put(&mut self, moment: u64, placed: Placed<E>) {
        let place = (moment % MOMENTS as u64) as usize;
        self.taken[place / 64] |= 1 << (place % 64);
        self.soon[place].push(placed);
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
