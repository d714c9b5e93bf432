//! Randomness by purpose: every node has dice of its own for everything that it rolls for, so that
//! one more roll somewhere changes nothing elsewhere.

use sha2::{Digest as _, Sha256};

/// A stream of numbers; SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
/// generators, 2014, figure 16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dice(u64);

impl Dice {
    /// The dice of `node` for `purpose` in the world of `seed`.
    pub fn of(seed: u64, node: &str, purpose: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(seed.to_le_bytes());
        hasher.update((node.len() as u64).to_le_bytes());
        hasher.update(node.as_bytes());
        hasher.update(purpose.as_bytes());
        let digest = hasher.finalize();
        Self(digest.iter().take(8).fold(0, |start, byte| start << 8 | u64::from(*byte)))
    }

    /// The next number.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.0;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if there is none.
    pub const fn below(&mut self, bound: u64) -> u64 {
        // Multiply-shift: the high half of the product.
        ((self.roll() as u128 * bound as u128) >> 64) as u64
    }

    /// A number from `from` to `to`, both included.
    pub const fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from).saturating_add(1))
    }

    /// A number from 0 to 1, 1 excluded, on a grid of 2^-53.
    pub const fn unit(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Whether something of this probability happens.
    pub const fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.unit() < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_of_one_purpose_are_the_same_and_of_another_are_not() {
        let rolls = |mut dice: Dice| [dice.roll(), dice.roll(), dice.roll()];
        assert_eq!(rolls(Dice::of(1, "a", "x")), rolls(Dice::of(1, "a", "x")));
        let others = [Dice::of(2, "a", "x"), Dice::of(1, "b", "x"), Dice::of(1, "a", "y")];
        for other in others.into_iter().chain([Dice::of(1, "ax", "")]) {
            assert_ne!(rolls(Dice::of(1, "a", "x")), rolls(other));
        }
    }

    #[test]
    fn rolls_stay_within_their_bounds_and_reach_them() {
        let mut dice = Dice::of(7, "n", "bounds");
        let mut seen = [false; 6];
        for _ in 0..1_000 {
            seen[usize::try_from(dice.between(3, 8) - 3).unwrap()] = true;
            let unit = dice.unit();
            assert!((0.0..1.0).contains(&unit));
        }
        assert_eq!(seen, [true; 6]);
        assert_eq!(dice.below(0), 0);
        assert!(!dice.chance(0.0) && dice.chance(1.0));
    }
}
