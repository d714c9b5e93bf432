//! Seeded dice (SplitMix64), so that a failing story can be run again as it was.

use crate::{clock, say};

/// A stream of numbers that depends on its seed only.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Seeded by `AILERON_E2E_SEED` or else anew; the seed is printed, so a failure shows it.
    pub fn of_story(story: &str) -> Self {
        let given = std::env::var("AILERON_E2E_SEED").ok();
        let seed = match given {
            Some(text) => text.parse().expect("AILERON_E2E_SEED takes a whole number"),
            None => fresh(),
        };
        say(&format!("{story}: repeat with AILERON_E2E_SEED={seed}"));
        Self(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end.max(1)
    }
}

/// Different in every run: stories must hold for any seed.
fn fresh() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(format!("{:?}", clock::now())) % 1_000_000
}
