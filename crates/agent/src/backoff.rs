//! How long to wait before saying something again: 1 s, doubling up to 60 s, spread by a fifth so
//! that a thousand proplets do not speak at once.

use std::time::Duration;

const FIRST_MS: u64 = 1_000;
const LAST_MS: u64 = 60_000;

/// The wait after `said` times, spread by what follows from `seed`.
pub(crate) fn wait(said: u32, seed: u64) -> Duration {
    let doublings = said.saturating_sub(1).min(6);
    let base = (FIRST_MS << doublings).min(LAST_MS);
    let spread = base * 2 / 5;
    let dice = mix(seed.wrapping_add(u64::from(said)));
    Duration::from_millis(base - spread / 2 + dice % (spread + 1))
}

/// A number of its own for every text.
pub(crate) fn hash(seed: u64, text: &str) -> u64 {
    text.bytes().fold(seed, |hash, byte| mix(hash ^ u64::from(byte)))
}

/// One step of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
/// 2014, figure 16).
const fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_within_a_fifth() {
        for (said, base_ms) in
            [(1, 1_000), (2, 2_000), (3, 4_000), (6, 32_000), (7, 60_000), (u32::MAX, 60_000)]
        {
            for seed in 0..500 {
                let ms = u64::try_from(wait(said, hash(seed, "r-1")).as_millis()).expect("short");
                assert!(ms >= base_ms * 4 / 5 && ms <= base_ms * 6 / 5, "{said}: {ms}");
            }
        }
    }

    #[test]
    fn waits_of_different_proplets_differ() {
        let waits: std::collections::BTreeSet<_> =
            (0..100).map(|seed| wait(4, hash(seed, "r-1"))).collect();
        assert!(waits.len() > 80, "{} different waits of 100", waits.len());
    }
}
