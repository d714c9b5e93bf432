//! A proxy between brokers that says everything at least twice, late, and in another order; on
//! request it also loses some of it.
//!
//! Each role lives on a broker of its own, so that every message of the platform crosses here.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{Cursor, Deadline, Dice, Heard, Peer, clock};

/// Longest delay of one copy.
const DELAY_MS_MAX: u64 = 400;
/// Most copies of one message.
const COPIES_MAX: u64 = 3;
/// How often a listening thread looks whether the bridge is taken down.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// One end of the bridge.
pub type Side = usize;

/// What goes from where to where; `filter` with MQTT's `+`.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub filter: &'static str,
    pub from: Side,
    pub to: &'static [Side],
    /// Whether the readers' brokers keep it for late subscribers.
    pub retain: bool,
}

/// How the bridge treats what crosses it.
#[derive(Clone, Debug)]
pub struct Habits {
    pub dice: Dice,
    /// How many messages of a hundred are lost, all their copies. Not those that a broker would
    /// keep: it owes them to whoever comes.
    pub lost_percent: u64,
}

/// A running bridge; taken down when dropped.
#[derive(Debug)]
pub struct Bridge {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Filled by the listening threads, emptied by the sending one.
    queue: Mutex<Queue>,
    changed: Condvar,
    crossed: AtomicU64,
}

#[derive(Debug)]
struct Queue {
    due: BinaryHeap<Reverse<Copy>>,
    habits: Habits,
    sequence: u64,
    down: bool,
}

/// One copy on its way.
#[derive(Debug)]
struct Copy {
    at: Instant,
    sequence: u64,
    to: Side,
    retain: bool,
    heard: Heard,
}

impl PartialEq for Copy {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Copy {}

impl PartialOrd for Copy {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Copy {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl Bridge {
    /// Joins the brokers on `ports` by `routes`.
    #[track_caller]
    pub fn build(ports: &[u16], routes: &'static [Route], habits: Habits) -> Self {
        let queue = Queue { due: BinaryHeap::new(), habits, sequence: 0, down: false };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            changed: Condvar::new(),
            crossed: AtomicU64::new(0),
        });
        let mut threads = vec![];
        for (side, port) in ports.iter().enumerate() {
            let own: Vec<Route> =
                routes.iter().filter(|route| route.from == side).copied().collect();
            let filters: Vec<&str> = own.iter().map(|route| route.filter).collect();
            let ear = Peer::connect(*port, &filters);
            let shared = Arc::clone(&shared);
            threads.push(thread::spawn(move || take(&ear, &own, &shared)));
        }
        let mouths: Vec<Peer> = ports.iter().map(|port| Peer::connect(*port, &[])).collect();
        let sender = Arc::clone(&shared);
        threads.push(thread::spawn(move || give(&mouths, &sender)));
        Self { shared, threads }
    }

    /// How many copies have been delivered.
    pub fn crossed(&self) -> u64 {
        self.shared.crossed.load(Ordering::Relaxed)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.shared.queue().down = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // One that panicked has already said so.
            let _ = thread.join();
        }
    }
}

fn take(ear: &Peer, routes: &[Route], shared: &Shared) {
    let mut read = Cursor::default();
    loop {
        let (news, end) = ear.next(read, Deadline::after(LOOK_EVERY));
        let mut queue = shared.queue();
        if queue.down {
            return;
        }
        for heard in news {
            for route in routes.iter().filter(|route| heard.is_on(route.filter)) {
                route.to.iter().for_each(|to| queue.push(*to, route.retain, &heard));
            }
        }
        drop(queue);
        shared.changed.notify_all();
        read = end;
    }
}

fn give(mouths: &[Peer], shared: &Shared) {
    let mut queue = shared.queue();
    while !queue.down {
        let now = clock::now();
        let next = queue.due.peek().map(|Reverse(copy)| copy.at);
        if next.is_some_and(|at| at <= now) {
            let Some(Reverse(copy)) = queue.due.pop() else { continue };
            let Heard { topic, payload, .. } = copy.heard;
            if copy.retain {
                mouths[copy.to].publish_retained(&topic, payload);
            } else {
                mouths[copy.to].publish(&topic, payload);
            }
            shared.crossed.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let pause = next.map_or(LOOK_EVERY, |at| at - now);
        let woken = shared.changed.wait_timeout(queue, pause);
        queue = woken.unwrap_or_else(PoisonError::into_inner).0;
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Two copies at least, each with a delay of its own: so they overtake one another.
    fn push(&mut self, to: Side, retain: bool, heard: &Heard) {
        let Habits { dice, lost_percent } = &mut self.habits;
        if !retain && dice.below(100) < *lost_percent {
            return;
        }
        for _ in 0..2 + dice.below(COPIES_MAX - 1) {
            let delay = Duration::from_millis(dice.below(DELAY_MS_MAX));
            self.sequence += 1;
            let (at, sequence, heard) = (clock::now() + delay, self.sequence, heard.clone());
            self.due.push(Reverse(Copy { at, sequence, to, retain, heard }));
        }
    }
}
