//! When to try again, and when to say so.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

use protocol::Timestamp;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A connection that lived so long was a good one.
const GOOD: Duration = Duration::from_secs(5);
/// A connection that lived no longer than this was cut on purpose.
const FLAP: Duration = Duration::from_secs(1);
const FLAPS_MAX: u32 = 3;
const SAY_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Patience {
    failures: u32,
    flaps: u32,
    connected_at: Option<Timestamp>,
    said_at: Option<Timestamp>,
}

/// What a loss is worth saying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    Nothing,
    /// That the broker is not there.
    Waiting,
    /// That it throws us out again and again.
    Flapping,
}

impl Patience {
    pub(super) fn connected(&mut self, now: Timestamp) {
        self.connected_at = Some(now);
    }

    /// A connection ended, or none came about: how long to wait, and what to say.
    pub(super) fn lost(&mut self, now: Timestamp) -> (Duration, Say) {
        let lived = self.connected_at.take().map(|at| now.since(at));
        match lived {
            Some(lived) if lived >= GOOD => (self.failures, self.flaps) = (0, 0),
            Some(lived) if lived <= FLAP => self.flaps += 1,
            Some(_) | None => {}
        }
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures += 1;
        let kind = match lived {
            None => Say::Waiting,
            Some(_) if self.flaps >= FLAPS_MAX => Say::Flapping,
            Some(_) => Say::Nothing,
        };
        (jittered(pause), self.unless_said(kind, now))
    }

    /// What made the connections fail is out of the way.
    pub(super) fn renew(&mut self) {
        (self.failures, self.flaps) = (0, 0);
    }

    fn unless_said(&mut self, kind: Say, now: Timestamp) -> Say {
        let recently = self.said_at.is_some_and(|at| now.since(at) < SAY_EVERY);
        if kind == Say::Nothing || recently {
            return Say::Nothing;
        }
        self.said_at = Some(now);
        kind
    }
}

/// Half to one and a half of `pause`, so that a thousand proplets do not come back at once.
fn jittered(pause: Duration) -> Duration {
    // The one source of chance in the standard library: a hasher's random keys.
    let chance = RandomState::new().build_hasher().finish() % 1024;
    pause.mul_f64(0.5 + f64::from(u32::try_from(chance).unwrap_or_default()) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn pauses_grow_and_words_are_few() {
        let mut patience = Patience::default();
        let (first, say) = patience.lost(at(100));
        assert!(first <= Duration::from_millis(150) && say == Say::Waiting);
        for _ in 0..20 {
            let (pause, say) = patience.lost(at(105));
            assert!(pause <= Duration::from_millis(7_500) && say == Say::Nothing);
        }
        let (pause, say) = patience.lost(at(111));
        assert!(pause >= Duration::from_millis(2_500) && say == Say::Waiting);
    }

    #[test]
    fn a_good_connection_starts_over() {
        let mut patience = Patience::default();
        for _ in 0..9 {
            patience.lost(at(0));
        }
        patience.connected(at(50));
        let (pause, say) = patience.lost(at(60));
        assert!(pause <= Duration::from_millis(150) && say == Say::Nothing);
    }

    #[test]
    fn being_thrown_out_again_and_again_is_noticed_and_slowed() {
        let mut patience = Patience::default();
        let mut last = (Duration::ZERO, Say::Nothing);
        for n in 0..FLAPS_MAX {
            patience.connected(at(u64::from(n)));
            last = patience.lost(at(u64::from(n)));
        }
        assert_eq!(last.1, Say::Flapping);
        assert!(last.0 >= Duration::from_millis(200), "{:?}", last.0);
    }
}
