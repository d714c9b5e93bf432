//! Pieces that are under way: how many may be, and when one is given up for lost.

use std::{collections::BTreeMap, time::Duration};

use protocol::Timestamp;

/// How the pieces come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The sender answers wants.
    Pulled,
    /// The broker holds the pieces, one topic each.
    Retained,
}

/// How much may be under way at once, from being asked for to being on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub chunks: usize,
    /// A single larger piece may be under way alone.
    pub bytes: u64,
}

/// What a receiver goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub window: Window,
    /// How long nothing may come before a piece is asked for again; doubled each time.
    pub patience: Duration,
    pub patience_max: Duration,
    /// How long the transfer may make no progress before it has failed.
    pub stall_max: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            window: Window { chunks: 16, bytes: 4 << 20 },
            patience: Duration::from_secs(10),
            patience_max: Duration::from_secs(120),
            stall_max: Duration::from_secs(600),
        }
    }
}

/// Pieces between being asked for and being on the disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flights {
    flights: BTreeMap<u32, Flight>,
    bytes: u64,
    /// Counts asks, so that it shows which piece was overtaken.
    asks: u64,
}

#[derive(Clone, Debug)]
struct Flight {
    len: u64,
    stage: Stage,
    asked_at: Timestamp,
    order: u64,
    attempts: u32,
    /// How many that were asked for later came before it.
    overtaken: usize,
    /// Ask again then, whatever the patience.
    nudge: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Asked,
    /// It has come, and is being written.
    Storing,
}

impl Flights {
    pub(crate) fn len(&self) -> usize {
        self.flights.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn stage(&self, index: u32) -> Option<Stage> {
        self.flights.get(&index).map(|flight| flight.stage)
    }

    pub(crate) fn asked(&self) -> impl Iterator<Item = u32> + '_ {
        let asked = self.flights.iter().filter(|(_, flight)| flight.stage == Stage::Asked);
        asked.map(|(index, _)| *index)
    }

    pub(crate) fn ask(&mut self, index: u32, len: usize, now: Timestamp) {
        let len = len as u64;
        self.asks += 1;
        let flight = Flight {
            len,
            stage: Stage::Asked,
            asked_at: now,
            order: self.asks,
            attempts: 0,
            overtaken: 0,
            nudge: None,
        };
        self.bytes += len;
        let before = self.flights.insert(index, flight);
        assert!(before.is_none(), "a piece that is under way is not asked for as if it were not");
    }

    /// A piece has come. Those that it has overtaken too often are taken to be lost.
    pub(crate) fn arrived(&mut self, index: u32, overtaken_max: usize, now: Timestamp) {
        let Some(flight) = self.flights.get_mut(&index) else { return };
        flight.stage = Stage::Storing;
        let order = flight.order;
        for other in self.flights.values_mut() {
            if other.stage == Stage::Asked && other.order < order {
                other.overtaken += 1;
                if other.overtaken >= overtaken_max {
                    other.nudge = Some(now);
                }
            }
        }
    }

    pub(crate) fn remove(&mut self, index: u32) {
        if let Some(flight) = self.flights.remove(&index) {
            self.bytes -= flight.len;
        }
    }

    /// A piece has come damaged, or could not be written: it is to be asked for again, soon, but
    /// less and less so.
    pub(crate) fn spoiled(&mut self, index: u32, pause: Duration, now: Timestamp) {
        if let Some(flight) = self.flights.get_mut(&index) {
            flight.stage = Stage::Asked;
            let at = now + pause * 2_u32.pow(flight.attempts.min(DOUBLINGS_MAX));
            flight.nudge = Some(flight.nudge.map_or(at, |nudge| nudge.min(at)));
        }
    }

    /// The connection is there again: what was asked for may be gone.
    pub(crate) fn doubt(&mut self, at: Timestamp) {
        for flight in self.flights.values_mut().filter(|flight| flight.stage == Stage::Asked) {
            flight.attempts = 0;
            flight.nudge = Some(at);
        }
    }

    /// What is to be asked for once more; from now on it has been.
    pub(crate) fn expire(
        &mut self,
        rules: &Rules,
        heard_at: Timestamp,
        now: Timestamp,
    ) -> Vec<u32> {
        let mut expired = vec![];
        for (index, flight) in &mut self.flights {
            if flight.due(rules, heard_at).is_some_and(|due| now >= due) {
                self.asks += 1;
                flight.order = self.asks;
                flight.asked_at = now;
                flight.attempts = flight.attempts.saturating_add(1);
                flight.overtaken = 0;
                flight.nudge = None;
                expired.push(*index);
            }
        }
        expired
    }

    pub(crate) fn deadline(&self, rules: &Rules, heard_at: Timestamp) -> Option<Timestamp> {
        self.flights.values().filter_map(|flight| flight.due(rules, heard_at)).min()
    }
}

/// Past this, patience is at its end anyway.
const DOUBLINGS_MAX: u32 = 10;

impl Flight {
    /// When to ask again. As long as others come, the way is open and this one may be behind them.
    fn due(&self, rules: &Rules, heard_at: Timestamp) -> Option<Timestamp> {
        if self.stage == Stage::Storing {
            return None;
        }
        let patience = rules.patience * 2_u32.pow(self.attempts.min(DOUBLINGS_MAX));
        let due = self.asked_at.max(heard_at) + patience.min(rules.patience_max);
        Some(self.nudge.map_or(due, |nudge| nudge.min(due)))
    }
}
